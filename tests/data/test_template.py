"""Templates: what stands around the columns of a row, and what is cut where a row is too long."""

import numpy as np
import pytest

from memarc.data import template, tokenize

FIELDS = ("premise", "hypothesis")


@pytest.fixture(scope="module")
def tokenizer():
    return tokenize.word_level_tokenizer([*"abcdef", "Q", ":", "so", "?"])


def words(tokenizer, encoded):
    rows = np.split(encoded.tokens["input_ids"], encoded.offsets[1:-1])
    return [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in rows]


def test_a_template_is_cut_where_its_columns_stand():
    assert template.parse("Q: {hypothesis} so {premise}", FIELDS) == ("Q: ", 1, " so ", 0)
    assert template.parse("{premise}", FIELDS) == (0,)
    assert "".join(map(str, template.parse("{{x}} {premise}", FIELDS))) == "{x} 0"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no column", r"names \[\]; name columns in braces, once each: premise, hypothesis"),
        ("{text}", r"names \['text'\]"),
        ("{premise} {premise}", r"names \['premise', 'premise'\]"),
        ("{}", r"names \[''\]"),
        ("{premise", "cannot be read"),
    ],
)
def test_a_template_that_is_not_of_the_columns_is_told(given, message):
    with pytest.raises(ValueError, match=message):
        template.parse(given, FIELDS)


def test_rows_are_the_template_with_their_texts_and_only_texts_are_cut(tokenizer):
    pieces = template.parse("Q : {premise} so {hypothesis} ?", FIELDS)
    columns = (["a b", "a b c d e f", ""], ["c", "d", "f f f"])
    encoded = template.encode(tokenizer, columns, pieces, begin=[1], max_length=10)
    first = tokenizer.convert_ids_to_tokens(1)
    assert words(tokenizer, encoded) == [
        f"{first} Q : a b so c ?",
        f"{first} Q : a b c d so d ?",  # Ten tokens: the longer text has lost two.
        f"{first} Q : so f f f ?",
    ]
    assert encoded.truncated_rows == 1
    assert not encoded.tokens["token_type_ids"].any()


def test_a_piece_that_stands_twice_takes_room_twice(tokenizer):
    pieces = template.parse("{premise} ? {hypothesis} ?", FIELDS)
    pieces = tuple(x.strip() if isinstance(x, str) else x for x in pieces)
    assert pieces == (0, "?", 1, "?")
    columns = (["a b c d e f"], ["a b"])
    encoded = template.encode(tokenizer, columns, pieces, begin=(), max_length=6)
    assert words(tokenizer, encoded) == ["a b ? a b ?"]


def test_every_row_is_what_it_is_alone(tokenizer):
    pieces, texts = template.parse("{premise} ?", FIELDS), ["a b c d", "", "f"]
    together = template.encode(tokenizer, (texts,), pieces, begin=(), max_length=3)
    alone = [template.encode(tokenizer, ([x],), pieces, begin=(), max_length=3) for x in texts]
    assert words(tokenizer, together) == [words(tokenizer, x)[0] for x in alone]
    assert words(tokenizer, together)[0] == "a b ?"


def test_a_mask_stays_whole_where_a_row_is_cut_and_is_text_in_a_column(tokenizer):
    pieces = template.parse("{premise} so <mask> ?", FIELDS)
    begin, end = tokenize.ids_around(tokenizer)
    texts = [
        "a b",
        "a b c d e f",
        "<mask> [MASK] a",
    ]  # The second mask is a word of this vocabulary.
    given = {"begin": begin, "end": end, "max_length": 8}
    encoded = template.encode(tokenizer, (texts,), pieces, **given)
    assert words(tokenizer, encoded) == [
        "[CLS] a b so [MASK] ? [SEP]",
        "[CLS] a b c so [MASK] ? [SEP]",
        "[CLS] [UNK] a so [MASK] ? [SEP]",
    ]
    assert encoded.truncated_rows == 1
    with pytest.raises(ValueError, match="max_length is 5, of which the template takes 5"):
        template.encode(tokenizer, (texts,), pieces, **given | {"max_length": 5})


@pytest.mark.parametrize("name", ["bert-base-uncased", "roberta"])
def test_a_masked_row_is_what_the_tokenizer_makes_of_the_whole_text(shared, name):
    tokenizer = tokenize.load_tokenizer(str(shared / "tokenizers" / name))
    text = "A gorgeous, witty movie"
    pieces = template.parse("{premise} It was <mask>.", FIELDS)
    begin, end = tokenize.ids_around(tokenizer)
    encoded = template.encode(tokenizer, ([text],), pieces, begin=begin, end=end, max_length=40)
    whole = tokenizer(f"{text} It was {tokenizer.mask_token}.")["input_ids"]
    assert encoded.tokens["input_ids"].tolist() == whole
    assert whole.count(tokenizer.mask_token_id) == 1


def test_a_template_without_room_or_columns_is_told(tokenizer):
    pieces = template.parse("Q : {premise} so {hypothesis} ?", FIELDS)
    with pytest.raises(ValueError, match="max_length is 5, of which the template takes 4; raise"):
        template.encode(tokenizer, (["a"], ["b"]), pieces, begin=(), max_length=5)
    with pytest.raises(ValueError, match="reads 2 columns; rows have 1"):
        template.encode(tokenizer, (["a"],), pieces, begin=(), max_length=9)


@pytest.mark.parametrize(
    ("lengths", "room", "wanted"),
    [
        ([5, 9], 14, [5, 9]),
        ([5, 9], 10, [5, 5]),
        ([9, 9], 9, [5, 4]),
        ([1, 20], 7, [1, 6]),
        ([3], 2, [2]),
        ([7, 3, 7], 9, [3, 3, 3]),
        ([0, 2], 1, [0, 1]),
    ],
)
def test_the_longest_text_is_cut_first(lengths, room, wanted):
    assert template._fit(lengths, room) == wanted
