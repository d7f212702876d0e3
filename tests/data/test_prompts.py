"""Rows are prompt, separator, target, end; caps cut the ends of texts; ids spell texts again."""

import dataclasses

import numpy as np
import pytest

from memarc.data import prompts, tokenize

SEPARATOR, END = 2, 11  # Of the tokenizer below, in which a is 5.


@pytest.fixture(scope="module")
def letters():
    return tokenize.word_level_tokenizer(list("abcdef"), end_token="[END]")


@pytest.fixture(scope="module")
def gpt2(shared):
    return tokenize.load_tokenizer(str(shared / "tokenizers" / "gpt2"), needs_pad=False)


LAYOUT = prompts.Layout(max_prompt=4, begin_id=None, separator_id=SEPARATOR, end_id=END)


def encode(tokenizer, inputs, targets, max_length=8, **changes):
    layout = dataclasses.replace(LAYOUT, **changes)
    return prompts.encode_pairs(tokenizer, inputs, targets, layout, max_length=max_length)


def rows_of(encoded):
    return [part.tolist() for part in np.split(encoded.tokens["input_ids"], encoded.offsets[1:-1])]


def prompt_lengths(encoded):
    """Tokens of each row before its first target token, with which the target's begin."""
    found = []
    for row in np.split(encoded.tokens["is_target"], encoded.offsets[1:-1]):
        assert row.tolist() == sorted(row) and set(row.tolist()) <= {0, 1}
        found.append(int((row == 0).sum()))
    return found


def test_a_row_is_prompt_separator_target_end(letters):
    encoded = encode(letters, ["a b", "c", ""], ["d", "e f", ""])
    assert rows_of(encoded) == [[5, 6, 2, 8, 11], [7, 2, 9, 10, 11], [2, 11]]
    assert prompt_lengths(encoded) == [3, 2, 1]
    assert encoded.offsets.tolist() == [0, 5, 10, 12]
    assert encoded.truncated_rows == 0
    assert list(encoded.tokens) == ["input_ids", "is_target"]
    dtypes = [array.dtype for array in (*encoded.tokens.values(), encoded.offsets)]
    assert dtypes == [np.int32, np.int32, np.int64]


def test_no_rows_give_no_ids(letters):
    encoded = encode(letters, [], [])
    assert {array.shape for array in encoded.tokens.values()} == {(0,)}
    assert encoded.offsets.tolist() == [0]


def test_a_long_input_is_cut_at_its_end_and_keeps_the_separator(letters):
    encoded = encode(letters, ["a b c", "a b c d"], ["e", "e"])
    assert rows_of(encoded) == [[5, 6, 7, 2, 9, 11]] * 2
    assert prompt_lengths(encoded) == [4, 4]
    assert encoded.truncated_rows == 1


@pytest.mark.parametrize(
    ("target", "row", "cut"),
    [
        ("a b c d e", [5, 2, 5, 6, 7, 8, 9, 11], 0),
        ("a b c d e f", [5, 2, 5, 6, 7, 8, 9, 10], 1),  # Its end token alone is lost.
        ("a b c d e f a", [5, 2, 5, 6, 7, 8, 9, 10], 1),
    ],
)
def test_a_long_target_is_cut_at_its_end_and_then_has_no_end_token(letters, target, row, cut):
    encoded = encode(letters, ["a"], [target])
    assert rows_of(encoded) == [row]
    assert encoded.truncated_rows == cut


def test_a_row_cut_twice_counts_once(letters):
    assert encode(letters, ["a b c d"], ["a b c d e f"]).truncated_rows == 1


@pytest.mark.parametrize("chunk_rows", [1, 2, 8])
def test_the_ids_of_a_row_depend_on_that_row_alone(letters, monkeypatch, chunk_rows):
    inputs, targets = ["a b", "c d e f", "", "odd"], ["c", "", "a b c d e f a", "f f"]
    alone = [rows_of(encode(letters, [x], [y]))[0] for x, y in zip(inputs, targets, strict=True)]
    monkeypatch.setattr(tokenize, "_CHUNK_ROWS", chunk_rows)
    together = encode(letters, inputs, targets)
    assert rows_of(together) == alone
    assert together.truncated_rows == 2


def test_a_token_may_begin_rows_and_takes_room_of_the_prompt(letters):
    encoded = encode(letters, ["a b", "a b c", ""], ["d", "e f", ""], begin_id=3)
    assert rows_of(encoded) == [[3, 5, 6, 2, 8, 11], [3, 5, 6, 2, 9, 10, 11], [3, 2, 11]]
    assert prompt_lengths(encoded) == [4, 4, 2]
    assert encoded.truncated_rows == 1
    layout = dataclasses.replace(LAYOUT, begin_id=3)
    padded, lengths, is_cut = prompts.encode_prompts(letters, ["a b c", ""], layout)
    assert padded.tolist() == [[3, 5, 6, 2], [3, 2, 11, 11]]
    assert lengths.tolist() == [4, 2] and is_cut.tolist() == [True, False]


def test_prompts_have_the_ids_that_they_have_in_rows(letters):
    inputs = ["a b", "", "c d e f"]
    padded, lengths, is_cut = prompts.encode_prompts(letters, inputs, LAYOUT)
    assert padded.tolist() == [[5, 6, 2, 11], [2, 11, 11, 11], [7, 8, 9, 2]]
    assert lengths.tolist() == [3, 1, 4] and is_cut.tolist() == [False, False, True]
    assert padded.dtype == lengths.dtype == np.int32
    rows = encode(letters, inputs, ["a"] * 3)
    assert prompt_lengths(rows) == lengths.tolist()
    for row, prompt, length in zip(rows_of(rows), padded, lengths, strict=True):
        assert row[:length] == prompt[:length].tolist()
    assert prompts.encode_prompts(letters, [], LAYOUT)[0].shape == (0, 4)


def test_byte_level_targets_begin_with_a_spaced_word(gpt2):
    end = prompts.special_id(gpt2, "<|endoftext|>")
    encoded = encode(gpt2, ["Hello world"], ["The cat"], separator_id=end, end_id=end)
    assert rows_of(encoded) == [[15496, 995, end, 383, 3797, end]]
    assert end == 50256
    target = encoded.tokens["input_ids"][prompt_lengths(encoded)[0] :]
    assert prompts.decode(gpt2, target, end) == "The cat"


@pytest.mark.parametrize("text", ["Café £20–25, (really)?", "a  b", "don 't ."])
def test_byte_level_texts_are_spelled_exactly(gpt2, text):
    encoded = encode(gpt2, ["x"], [text], max_length=40, separator_id=50256, end_id=50256)
    assert prompts.decode(gpt2, encoded.tokens["input_ids"][2:], 50256) == text


def test_decoding_stops_at_the_first_end_and_leaves_out_special_tokens(letters):
    assert prompts.decode(letters, np.array([5, 2, 6, 11, 7, 11]), END) == "a b"
    assert prompts.decode(letters, [7, 0], END) == "c"
    assert prompts.decode(letters, [END], END) == prompts.decode(letters, [], END) == ""


def test_special_tokens_are_found_by_their_text(letters):
    assert prompts.special_id(letters, "[SEP]") == SEPARATOR
    assert prompts.special_id(letters, "[END]") == END


@pytest.mark.parametrize("token", ["a", "[GAP]", "[UNK]", ""])
def test_other_tokens_are_refused(letters, token):
    with pytest.raises(
        ValueError, match=r"cannot begin, separate or end texts: .* are .*\[SEP\]"
    ) as e:
        prompts.special_id(letters, token)
    assert repr(token) in str(e.value)
    assert "[UNK]" not in str(e.value).replace(repr(token), "")


def test_a_tokenizer_without_special_tokens_says_so(letters):
    class Bare:
        all_special_tokens = ()
        unk_token = eos_token = None

    with pytest.raises(ValueError, match="special tokens for that are none"):
        prompts.special_id(Bare(), "[SEP]")


def test_caps_without_room_are_refused(letters):
    with pytest.raises(ValueError, match="is 1; give at least 2, one more than for the separator"):
        dataclasses.replace(LAYOUT, max_prompt=1)
    with pytest.raises(ValueError, match="is 2; give at least 3, one more than for begin and sep"):
        dataclasses.replace(LAYOUT, max_prompt=2, begin_id=3)
    with pytest.raises(ValueError, match=r"max_length is 4, .* max_prompt = 4; leave room for a"):
        encode(letters, ["a"], ["b"], max_length=4)


def test_inputs_without_targets_are_refused(letters):
    with pytest.raises(ValueError, match="2 inputs and 1 targets"):
        encode(letters, ["a", "b"], ["c"])
