"""References are collected by input, and laid out again side by side."""

from memarc.data.references import flatten, references
from memarc.data.rows import Rows


def pairs_as_rows(pairs):
    return Rows(columns=([x for x, _ in pairs], [y for _, y in pairs]), labels=None)


def pairs_of(rows):
    return list(zip(*rows.columns, strict=True))


ROWS = pairs_as_rows([("b", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("b", "1")])


def test_references_are_collected_in_order_of_first_appearance():
    assert len(ROWS) == 5
    assert references(ROWS) == (("b", "a", "c"), (("1", "3", "1"), ("2",), ("4",)))
    assert references(pairs_as_rows([])) == ((), ())


def test_flattening_puts_the_references_of_an_input_side_by_side():
    rows = flatten(*references(ROWS))
    assert pairs_of(rows) == [("b", "1"), ("b", "3"), ("b", "1"), ("a", "2"), ("c", "4")]
