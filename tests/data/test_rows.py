"""Rows are columns of equal length, with labels or without, taken by position."""

import numpy as np
import pytest

from memarc.data.rows import Rows


@pytest.mark.parametrize("labels", [None, np.array([2, 0, 1], np.int32)])
def test_rows_are_taken_in_the_order_asked_for(labels):
    rows = Rows(columns=(["a", "b", "c"], ("x", "y", "z")), labels=labels)
    taken = rows.take(np.array([2, 0]))
    assert (len(rows), len(taken)) == (3, 2)
    assert taken.columns == (["c", "a"], ["z", "x"])
    assert taken.labels is None if labels is None else taken.labels.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        ((["a", "b"], ["c", "d", "e"]), 2, r"Columns have \[2, 3\] rows, labels 2; make them eq"),
        ((["a", "b"],), 3, r"Columns have \[2\] rows, labels 3"),
        ((["a"], ["1", "2"]), None, r"Columns have \[1, 2\] rows; make them equal"),
        ((), None, r"Columns have \[\] rows"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(columns, labels, message):
    with pytest.raises(ValueError, match=message):
        Rows(columns=columns, labels=None if labels is None else np.zeros(labels, np.int32))
