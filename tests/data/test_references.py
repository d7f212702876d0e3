"""Rows are grouped by input, and what is beyond the first references is dropped."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from memarc.data.references import flatten, group, references
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


def test_groups_keep_the_first_references():
    kept, members = group(ROWS, 2)
    assert pairs_of(kept) == [("b", "1"), ("b", "3"), ("a", "2"), ("c", "4")]
    assert members.tolist() == [[0, 1], [2, -1], [3, -1]]
    assert members.dtype == np.int64


def test_no_rows_make_no_groups():
    kept, members = group(pairs_as_rows([]), 3)
    assert (len(kept), members.shape) == (0, (0, 3))


@pytest.mark.checklist(32)
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    inputs=strategies.lists(strategies.sampled_from("abcd"), max_size=12),
    size=strategies.integers(1, 4),
    gone=strategies.sampled_from("abcd"),
)
def test_removing_an_input_removes_its_group_and_changes_no_other(inputs, size, gone):
    def groups(numbered):
        kept, members = group(pairs_as_rows(numbered), size)
        assert sorted(members[members >= 0].tolist()) == list(range(len(kept)))
        found = pairs_of(kept)
        return [[found[row] for row in rows if row >= 0] for rows in members]

    numbered = [(x, str(i)) for i, x in enumerate(inputs)]
    rest = groups([pair for pair in numbered if pair[0] != gone])
    assert [rows for rows in groups(numbered) if rows[0][0] != gone] == rest


def test_groups_of_nothing_are_refused():
    with pytest.raises(ValueError, match="references_per_group is 0; give at least 1"):
        group(ROWS, 0)
