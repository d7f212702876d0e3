"""A codec makes datasets and prompts of rows, and texts of tokens, by a config's special tokens."""

import dataclasses

import numpy as np
import pytest

from memarc.batches import CLASSIFICATION, GENERATION
from memarc.data import restaurants, tokenize
from memarc.data.codec import open_codec
from memarc.data.config import DataConfig
from memarc.data.rows import Rows
from memarc.data.tasks import get_task

CONFIG = DataConfig(
    source="embedded", tokenizer="word_level", separator="[SEP]", max_prompt=48, max_length=96
)
RESTAURANTS, REVIEWS = get_task("restaurants"), get_task("reviews")
ROWS = restaurants.dev_rows(7, 3)
INPUTS = list(dict.fromkeys(ROWS.columns[0]))


def open_texts(**changes):
    return open_codec(RESTAURANTS, dataclasses.replace(CONFIG, **changes))


def test_the_layout_has_the_special_tokens_of_the_config():
    codec = open_texts()
    layout, end_id = codec.layout, codec.info.vocab_size - 1
    assert (codec.kind, codec.max_length, layout.max_prompt) == (GENERATION, 96, 48)
    assert (layout.begin_id, layout.separator_id, layout.end_id) == (None, 2, end_id)
    assert codec.info.pad_id == codec.dataset(ROWS).pad_id == end_id
    other = open_texts(separator=None, max_prompt=None, begin="[CLS]", end="[MASK]")
    assert other.layout == dataclasses.replace(
        layout, begin_id=1, separator_id=4, end_id=4, max_prompt=48
    )


def test_a_token_that_a_model_reads_first_may_not_be_left_out(shared):
    """RoBERTa's tokenizer, as LLaMA's, begins rows with a token by itself; GPT-2's does not."""
    e2e = get_task("e2e")
    names = {name: str(shared / "tokenizers" / name) for name in ("roberta", "gpt2")}
    config = DataConfig(root="r", tokenizer=names["roberta"], max_length=96)
    with pytest.raises(ValueError, match=r"begins rows with '<s>', .* trained to read first; set"):
        open_codec(e2e, config)
    begun = open_codec(e2e, dataclasses.replace(config, begin="<s>"))
    assert begun.layout.begin_id == 0
    assert (
        open_codec(e2e, dataclasses.replace(config, tokenizer=names["gpt2"])).layout.begin_id
        is None
    )


def test_words_for_labels_have_ids_of_their_own(shared):
    config = DataConfig(
        root="r", tokenizer=str(shared / "tokenizers" / "gpt2"), template="{sentence} It was"
    )
    codec = open_codec(get_task("sst2"), config)
    assert codec.label_ids((" bad", " good")) == ((2089,), (922,))
    (ids,) = codec.label_ids((" unspeakable",))
    assert len(ids) == 3 and codec.tokenizer.decode(ids) == " unspeakable"
    assert codec.label_ids(()) == ()
    for words in (" bad", " bad"), (" bad", ""):
        with pytest.raises(ValueError, match="give each label words of its own"):
            codec.label_ids(words)
    rows = codec.dataset(Rows((["A fine film ."],), np.zeros(1, np.int32)))
    ids = rows.take(np.arange(1), 9)["input_ids"][0]
    assert codec.tokenizer.decode(ids[:6]) == "A fine film . It was"


def test_a_template_with_a_mask_needs_a_tokenizer_with_one_and_has_its_special_tokens(shared):
    names = {x: str(shared / "tokenizers" / x) for x in ("gpt2", "bert-base-uncased")}
    config = DataConfig(root="r", tokenizer=names["gpt2"], template="{sentence} Was it <mask>?")
    with pytest.raises(ValueError, match=r"has a mask, and tokenizer .* has no mask token"):
        open_codec(get_task("sst2"), config)
    config = dataclasses.replace(config, tokenizer=names["bert-base-uncased"])
    codec = open_codec(get_task("sst2"), config)
    rows = codec.dataset(Rows((["A fine film ."],), np.zeros(1, np.int32)))
    ids = rows.take(np.arange(1), 12)["input_ids"][0]
    text = "[CLS] a fine film . was it [MASK] ? [SEP] [PAD] [PAD]"
    assert " ".join(codec.tokenizer.convert_ids_to_tokens(ids)) == text
    with pytest.raises(ValueError, match=r"head.words has \['\u2603'\], of which tokenizer"):
        codec.label_ids(("good", "\u2603"))


def test_prompts_have_the_ids_that_they_have_in_rows_and_targets_spell_their_texts():
    codec = open_texts()
    prompts = codec.prompts(INPUTS, [["a"], ["b", "c"], []])
    assert (prompts.inputs, prompts.references) == (tuple(INPUTS), (("a",), ("b", "c"), ()))
    assert prompts.tokens.shape == (3, 48) and not prompts.is_cut.any()
    batch = codec.dataset(ROWS).take(np.arange(7), 96)
    for i, (ids, is_target) in enumerate(zip(batch["input_ids"], batch["is_target"], strict=True)):
        place = INPUTS.index(ROWS.columns[0][i])
        length = prompts.lengths[place]
        assert ids[:length].tolist() == prompts.tokens[place, :length].tolist()
        assert ids[length - 1] == codec.layout.separator_id
        assert not is_target[:length].any() and is_target[length]
        assert codec.decode(ids[length:]) == ROWS.columns[1][i]


def test_inputs_may_come_without_references_but_not_with_those_of_others():
    codec = open_texts(max_prompt=9)
    prompts = codec.prompts(INPUTS)
    assert prompts.references == ((), (), ())
    assert prompts.is_cut.all() and prompts.lengths.tolist() == [9, 9, 9]
    with pytest.raises(ValueError, match="3 inputs and references of 1"):
        codec.prompts(INPUTS, [["a"]])


def test_a_token_that_begins_rows_stands_before_all_of_them():
    bare, begun = open_texts(), open_texts(begin="[CLS]")
    first = begun.tokenizer.convert_tokens_to_ids("[CLS]")
    old = bare.dataset(ROWS).take(np.arange(5), 80)["input_ids"]
    new = begun.dataset(ROWS).take(np.arange(5), 81)["input_ids"]
    assert (new[:, 0] == first).all() and (new[:, 1:] == old).all()
    old, new = bare.prompts(INPUTS), begun.prompts(INPUTS)
    assert (new.tokens[:, 0] == first).all()
    assert (new.tokens[:, 1:] == old.tokens[:, :-1]).all()
    assert (new.lengths == old.lengths + 1).all()


@pytest.mark.parametrize(
    ("changes", "token"),
    [({"separator": "[GAP]"}, r"\[GAP\]"), ({"begin": "a"}, "a"), ({"end": "[GAP]"}, r"\[GAP\]")],
)
def test_tokens_that_are_not_special_are_refused(changes, token):
    with pytest.raises(ValueError, match=f"'{token}' cannot begin, separate or end texts"):
        open_texts(**changes)


def test_a_tokenizer_without_an_end_needs_a_named_one(words, tmp_path):
    tokenize.save_tokenizer(words, str(tmp_path))
    with pytest.raises(ValueError, match=r"end is None, and tokenizer .* choose one of .*\[SEP\]"):
        open_texts(tokenizer=str(tmp_path))
    codec = open_texts(tokenizer=str(tmp_path), end="[PAD]")
    assert codec.layout.end_id == codec.info.pad_id == 0


@pytest.mark.parametrize("task", [REVIEWS, RESTAURANTS], ids=lambda task: task.name)
def test_a_config_without_a_tokenizer_is_refused(task):
    with pytest.raises(ValueError, match=r"tokenizer is None, which stands for .* the model's wei"):
        open_codec(task, DataConfig(source="embedded"))


def test_a_codec_of_classification_makes_datasets_alone():
    config = DataConfig(source="embedded", tokenizer="word_level", max_length=9)
    codec = open_codec(REVIEWS, config)
    assert (codec.kind, codec.layout, codec.info.pad_id) == (CLASSIFICATION, None, 0)
    rows = Rows((["the food was bad", "the view", "we"],), np.array([0, 1, 1], np.int32))
    assert codec.dataset(rows).lengths.tolist() == [6, 4, 3]
    grouped = codec.dataset(rows, np.array([[2, 1], [0, -1]]))
    assert (grouped.group, grouped.lengths.tolist()) == ((2,), [4, 6])
    assert grouped.take(np.arange(2), 9)["labels"].tolist() == [[1, 1], [0, 0]]
    for use in (lambda: codec.prompts(["we"]), lambda: codec.decode([5])):
        with pytest.raises(ValueError, match="A codec of classification has no prompts"):
            use()
