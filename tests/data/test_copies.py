"""Public rows that teach copying: a text has the parts of its input, in any order."""

import pytest

from memarc.data import copies

WORDS = ("Zanzibar", "quokka", "£19", "Łódź")
INPUTS, TARGETS = copies.rows(500, 4, WORDS).columns


def test_texts_have_the_parts_of_their_inputs_and_nothing_else():
    for given, text in zip(INPUTS, TARGETS, strict=True):
        assert sorted(given.split(" | ")) == sorted(text.split(" , "))
        assert set(given.split()) - {"|"} <= set(WORDS)


def test_orders_sizes_and_words_vary():
    parts = [given.split(" | ") for given in INPUTS]
    assert {len(row) for row in parts} == set(range(1, 7))
    assert {len(part.split()) for row in parts for part in row} == set(range(1, 5))
    pairs = zip(INPUTS, TARGETS, strict=True)
    moved = sum(given.replace(" | ", " , ") != text for given, text in pairs)
    assert 0.6 < moved / 500 < 0.8  # One row in six has one part, and half of those with two stay.


def test_rows_depend_on_the_seed_alone_and_impossible_draws_are_refused():
    again, other = (copies.rows(500, seed, WORDS).columns[1] for seed in (4, 5))
    assert again == TARGETS != other
    with pytest.raises(ValueError, match="count is -1"):
        copies.rows(-1, 0, WORDS)
    with pytest.raises(ValueError, match="there are 0 words"):
        copies.rows(1, 0, ())
