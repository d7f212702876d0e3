"""Conversations become the ids that the tokenizer's own chat template writes; only turns learn."""

import json

import numpy as np
import pytest

from memarc.data import chat, tokenize
from memarc.data.codec import open_codec
from memarc.data.config import DataConfig
from memarc.data.load import task_of
from memarc.data.rows import Rows

START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Yes one."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "No."},
]


@pytest.fixture(scope="module")
def tokenizer():
    made = tokenize.train_tokenizer(["assistant user system Yes one."] * 3, 290, end_token=END)
    made.add_special_tokens({"additional_special_tokens": [START]})
    made.chat_template = TEMPLATE
    return made


def encoded(tokenizer, talk, max_length=200):
    rows = [json.dumps(talk[:-1])], [talk[-1]["content"]]
    return chat.encode(tokenizer, *rows, max_length=max_length)


def test_ids_are_the_templates_and_targets_are_what_the_assistant_says(tokenizer):
    found = encoded(tokenizer, TALK)
    ids, marks = found.tokens["input_ids"], found.tokens["is_target"]
    assert ids.tolist() == tokenizer.apply_chat_template(TALK, return_dict=False)
    start, end = tokenizer.convert_tokens_to_ids([START, END])
    assert (ids == start).sum() == (ids == end).sum() == 5  # Special tokens stay whole.
    said = "".join(tokenizer.decode(ids[marks == 1]))
    assert said == f"Yes one.{END}\nNo.{END}\n"
    assert tokenizer.decode(ids[marks == 0]).count("assistant\n") == 2


def test_a_prompt_alone_has_the_ids_that_it_has_before_the_answer(tokenizer):
    whole = encoded(tokenizer, TALK).tokens["input_ids"]
    tokens, lengths, is_cut = chat.encode_prompts(
        tokenizer, [json.dumps(TALK[:-1])], max_prompt=150, pad_id=7
    )
    assert tokens[0, : lengths[0]].tolist() == whole[: lengths[0]].tolist() and not is_cut[0]
    assert (tokens[0, lengths[0] :] == 7).all()
    short, _, is_cut = chat.encode_prompts(
        tokenizer, [json.dumps(TALK[:-1])], max_prompt=9, pad_id=7
    )
    assert short[0].tolist() == whole[lengths[0] - 9 : lengths[0]].tolist() and is_cut[0]


def test_a_row_too_long_loses_its_end_and_is_counted(tokenizer):
    whole = encoded(tokenizer, TALK)
    cut = encoded(tokenizer, TALK, max_length=11)
    for key in ("input_ids", "is_target"):
        np.testing.assert_array_equal(cut.tokens[key], whole.tokens[key][:11])
    assert (whole.truncated_rows, cut.truncated_rows) == (0, 1)


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    tokenizer = tokenize.train_tokenizer(["a"], 260, end_token=END)
    tokenizer.chat_template = TEMPLATE.replace("{{ m.content }}", "{{ loop.revindex }}")
    with pytest.raises(ValueError, match="writes a turn otherwise where later ones follow"):
        encoded(tokenizer, TALK)


def test_a_template_that_fails_quotes_nothing(tokenizer):
    tokenizer = tokenize.train_tokenizer(["a"], 260, end_token=END)
    tokenizer.chat_template = "{{ raise_exception(messages[1].content) }}"
    with pytest.raises(ValueError, match="refuses a conversation") as caught:
        encoded(tokenizer, TALK)
    assert "One?" not in str(caught.value) and caught.value.__suppress_context__


@pytest.mark.parametrize(
    "value",
    ["no json", "{}", [1], [{"role": "user"}], [{"role": 1, "content": "x"}], None],
)
def test_what_is_no_conversation_is_none(value):
    assert chat.conversation(value) is None


def test_a_conversation_may_be_json_and_loses_empty_fields():
    turn = {"role": "user", "content": "x", "name": None}
    assert chat.conversation(json.dumps([turn])) == [{"role": "user", "content": "x"}]
    assert chat.conversation([turn]) == [{"role": "user", "content": "x"}]


def test_a_codec_of_conversations_needs_a_template_and_reads_back_an_answer(tokenizer, tmp_path):
    config = DataConfig(
        source="own",
        train=("a.jsonl",),
        messages="talk",
        max_length=120,
        tokenizer=str(tmp_path / "with"),
    )
    tokenize.save_tokenizer(tokenizer, config.tokenizer)
    task = task_of("generation", config)
    codec = open_codec(task, config)
    dataset = codec.dataset(Rows(([json.dumps(TALK[:-1])], ["No."]), None))
    row = dataset.take(np.array([0]), 120)
    is_target, ids = row["is_target"][0], row["input_ids"][0]
    begin = np.flatnonzero(np.diff(is_target) == 1)[-1] + 1  # Where the last turn is asked for.
    assert codec.decode(ids[begin:]) == "No."
    tokenizer.chat_template = None
    tokenize.save_tokenizer(tokenizer, str(tmp_path / "without"))
    with pytest.raises(ValueError, match="has no chat template; give one of an instruct model"):
        open_codec(task, DataConfig(**{**vars(config), "tokenizer": str(tmp_path / "without")}))
