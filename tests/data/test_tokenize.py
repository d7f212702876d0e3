"""Tokens match published ids, rows are cut at the cap, and folders are read back."""

import numpy as np
import pytest
import tokenizers
import transformers

from memarc.data import reviews, tokenize


def rows_of(encoded):
    return [part.tolist() for part in np.split(encoded.tokens["input_ids"], encoded.offsets[1:-1])]


def types_of(encoded):
    return [
        part.tolist() for part in np.split(encoded.tokens["token_type_ids"], encoded.offsets[1:-1])
    ]


@pytest.mark.parametrize(
    ("folder", "ids", "pair", "pair_types", "vocab_size", "pad_id", "mask_id"),
    [
        (
            "bert-base-uncased",
            [101, 7592, 2088, 102],
            [101, 7592, 102, 2088, 102],
            [0, 0, 0, 1, 1],
            30522,
            0,
            103,
        ),
        (
            "roberta",
            [0, 31414, 232, 2],
            [0, 31414, 2, 2, 8331, 2],
            [0, 0, 0, 0, 0, 0],
            50265,
            1,
            50264,
        ),
    ],
)
def test_published_vocabularies_give_their_published_ids(
    shared, folder, ids, pair, pair_types, vocab_size, pad_id, mask_id
):
    name = str(shared / "tokenizers" / folder)
    tokenizer = tokenize.load_tokenizer(name)
    assert rows_of(tokenize.encode(tokenizer, (["Hello world"],), max_length=9)) == [ids]
    both = tokenize.encode(tokenizer, (["Hello"], ["world"]), max_length=9)
    assert rows_of(both) == [pair]
    assert types_of(both) == [pair_types]
    info = tokenize.describe(tokenizer, name)
    assert (info.vocab_size, info.pad_id, info.mask_id) == (vocab_size, pad_id, mask_id)


def test_a_tokenizer_without_a_pad_token_is_refused(shared):
    with pytest.raises(ValueError, match="gpt2' has no pad token"):
        tokenize.load_tokenizer(str(shared / "tokenizers" / "gpt2"))


def test_a_tokenizer_without_a_pad_token_is_read_if_none_is_needed(shared):
    name = str(shared / "tokenizers" / "gpt2")
    info = tokenize.describe(tokenize.load_tokenizer(name, needs_pad=False), name, pad_id=7)
    assert (info.vocab_size, info.pad_id, info.mask_id) == (50257, 7, None)


def test_words_are_numbered_after_the_special_tokens():
    tokenizer = tokenize.word_level_tokenizer(["bad", "good", "not"])
    single = tokenize.encode(tokenizer, (["not bad", "", "odd good"],), max_length=9)
    assert rows_of(single) == [[1, 7, 5, 2], [1, 2], [1, 3, 6, 2]]
    pair = tokenize.encode(tokenizer, (["good"], ["not bad"]), max_length=9)
    assert rows_of(pair) == [[1, 6, 2, 7, 5, 2]]
    assert types_of(pair) == [[0, 0, 0, 1, 1, 1]]
    info = tokenize.describe(tokenizer, "word_level")
    expected = tokenize.TokenizerInfo(
        name="word_level", vocab_size=8, pad_id=0, mask_id=4, special_ids=(0, 1, 2, 3, 4)
    )
    assert info == expected


def test_ids_may_have_holes_and_all_are_below_the_stated_number():
    """A tokenizer of 3 words, one of which is number 9, is none for a table of 3 rows."""
    words = tokenizers.models.WordLevel({"[UNK]": 0, "bad": 1, "good": 9}, unk_token="[UNK]")
    backend = tokenizers.Tokenizer(words)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[UNK]"
    )
    assert len(tokenizer) == 3
    assert tokenize.describe(tokenizer, "x").vocab_size == 10


def test_an_end_token_is_special_and_moves_no_other_id(tmp_path):
    tokenizer = tokenize.word_level_tokenizer(["bad", "good"], end_token=tokenize.END_TOKEN)
    assert list(tokenize.plain_ids(tokenizer, ["good bad [END]"])) == [[6, 5, 7]]
    assert tokenize.describe(tokenizer, "x").special_ids == (0, 1, 2, 3, 4, 7)
    assert tokenize.describe(tokenizer, "x").vocab_size == 8
    tokenize.save_tokenizer(tokenizer, str(tmp_path))
    assert tokenize.load_tokenizer(str(tmp_path)).eos_token == "[END]"
    with pytest.raises(ValueError, match="repeats good"):
        tokenize.word_level_tokenizer(["good"], end_token="good")


@pytest.mark.parametrize("chunk_rows", [1, 2, 8])
def test_plain_ids_have_no_special_tokens_and_are_not_cut(words, monkeypatch, chunk_rows):
    monkeypatch.setattr(tokenize, "_CHUNK_ROWS", chunk_rows)
    found = list(tokenize.plain_ids(words, ["the " * 900, "", " the food"]))
    whole = tokenize.encode(words, (["the food"],), max_length=9).tokens["input_ids"].tolist()
    assert found == [[whole[1]] * 900, [], whole[1:-1]]
    assert list(tokenize.plain_ids(words, [])) == []


def test_ids_are_compact_and_no_rows_give_no_ids(words):
    encoded = tokenize.encode(words, (["the food"],), max_length=9)
    assert list(encoded.tokens) == ["input_ids", "token_type_ids"]
    assert {array.dtype for array in encoded.tokens.values()} == {np.dtype(np.int32)}
    assert encoded.offsets.dtype == np.int64
    empty = tokenize.encode(words, ([],), max_length=9)
    assert empty.tokens["input_ids"].shape == (0,)
    assert empty.offsets.tolist() == [0]


def test_every_word_of_the_grammar_is_known(words):
    sentences = reviews.dev_rows(200, 1).columns
    unknown = words.unk_token_id
    assert unknown not in tokenize.encode(words, sentences, max_length=32).tokens["input_ids"]


@pytest.mark.parametrize("chunk_rows", [1, 2, 8])
def test_chunking_changes_nothing(words, monkeypatch, chunk_rows):
    columns = (["the food was bad", "", "we love the cake"], ["a", "the view", ""])
    whole = tokenize.encode(words, columns, max_length=7)
    monkeypatch.setattr(tokenize, "_CHUNK_ROWS", chunk_rows)
    again = tokenize.encode(words, columns, max_length=7)
    assert rows_of(again) == rows_of(whole)
    assert types_of(again) == types_of(whole)
    assert again.truncated_rows == whole.truncated_rows == 1


def test_a_long_row_is_cut_to_the_cap_and_counted():
    tokenizer = tokenize.word_level_tokenizer(list("abcdef"))  # a is 5.
    encoded = tokenize.encode(tokenizer, (["a b c d e", "a b c"],), max_length=5)
    assert rows_of(encoded) == [[1, 5, 6, 7, 2], [1, 5, 6, 7, 2]]
    assert encoded.truncated_rows == 1


def test_the_longer_text_of_a_pair_is_cut_first():
    tokenizer = tokenize.word_level_tokenizer(list("abcdef"))
    encoded = tokenize.encode(tokenizer, (["a b c d e"], ["f"]), max_length=6)
    assert rows_of(encoded) == [[1, 5, 6, 2, 10, 2]]
    assert types_of(encoded) == [[0, 0, 0, 0, 1, 1]]
    assert encoded.truncated_rows == 1


@pytest.mark.parametrize(("columns", "special"), [((["a"],), 2), ((["a"], ["b"]), 3)])
def test_a_cap_without_room_for_text_is_refused(words, columns, special):
    with pytest.raises(ValueError, match=f"max_length is {special}, and special tokens alone take"):
        tokenize.encode(words, columns, max_length=special)


def test_three_text_columns_are_refused(words):
    with pytest.raises(ValueError, match="Got 3 text columns"):
        tokenize.encode(words, (["a"], ["b"], ["c"]), max_length=9)


def test_a_saved_word_level_tokenizer_is_read_back(words, tmp_path):
    folder = str(tmp_path / "words")
    tokenize.save_tokenizer(words, folder)
    loaded = tokenize.load_tokenizer(folder)
    columns = (["the food was not bad .", ""], ["we love it", "odd"])
    before, after = (tokenize.encode(t, columns, max_length=9) for t in (words, loaded))
    assert rows_of(before) == rows_of(after)
    assert types_of(before) == types_of(after)
    assert tokenize.describe(loaded, "x") == tokenize.describe(words, "x")


@pytest.mark.parametrize("listed", [["good", "good"], ["good", "[MASK]"]])
def test_a_word_list_with_repeats_is_refused(listed):
    with pytest.raises(ValueError, match=r"repeats (good|\[MASK\]); give each word once"):
        tokenize.word_level_tokenizer(listed)


def test_a_missing_folder_is_refused_before_any_network_is_asked(tmp_path):
    with pytest.raises(ValueError, match=r"There is no tokenizer folder .*none"):
        tokenize.load_tokenizer(str(tmp_path / "none"))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No tokenizer could be read from the folder"):
        tokenize.load_tokenizer(str(tmp_path))


def test_a_folder_with_a_config_alone_has_no_vocabulary(tmp_path):
    """transformers makes an empty tokenizer of it, which would cut every text to nothing."""
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=r"has no vocabulary|No tokenizer could be read"):
        tokenize.load_tokenizer(str(tmp_path), needs_pad=False)


def test_an_unreachable_hub_name_is_refused(monkeypatch):
    import transformers

    def fail(name, local_files_only):
        assert not local_files_only
        raise OSError(f"cannot reach {name}.")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(ValueError, match=r"hub name .*'org/none': cannot reach org/none"):
        tokenize.load_tokenizer("org/none")
