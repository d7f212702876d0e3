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


def test_the_names_of_people_are_taken_along_and_are_in_the_fingerprint():
    texts, labels = (["a", "b", "a"],), np.array([2, 0, 1], np.int32)
    rows = Rows(texts, labels, ["x", "y", "y"])
    assert rows.take(np.array([2, 0])).users == ["y", "x"]
    prints = [
        rows.fingerprint(),
        Rows(texts, labels).fingerprint(),
        Rows(texts, labels, ["x", "y", "x"]).fingerprint(),
    ]
    assert len(set(prints)) == 3
    assert rows.take(np.array([1, 2, 0])).fingerprint() == prints[0]


def test_a_fingerprint_changes_with_every_text_and_label_and_not_with_the_order():
    first, second, labels = ["a", "b", "a"], ["x", "y", "x"], np.array([2, 0, 1], np.int32)

    def of(columns, labels):
        return Rows(tuple(columns), labels).fingerprint()

    whole = of([first, second], labels)
    turned = [2, 0, 1]
    assert whole == Rows((first, second), labels).take(np.array(turned)).fingerprint()
    others = [
        of([first, second], None),
        of([first, second], labels[::-1].copy()),  # Labels of equal texts may be exchanged,
        of([first, ["x", "y", ""]], labels),
        of([["a", "b", "ax"], ["x", "y", ""]], labels),  # and texts of columns do not run on.
        of([first[:2], second[:2]], labels[:2]),
        of([second, first], labels),
        of([[*first, "a"], [*second, "x"]], np.array([2, 0, 1, 1], np.int32)),
    ]
    assert others[1] == of([first, second], np.array([1, 0, 2], np.int32)) == whole
    del others[1]
    assert len({whole, *others}) == 1 + len(others)


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


def test_as_many_people_as_rows_are_wanted():
    with pytest.raises(ValueError, match=r"\[2\] rows, labels 2, users 3; make them equal"):
        Rows((["a", "b"],), np.zeros(2, np.int32), ["x", "y", "z"])
