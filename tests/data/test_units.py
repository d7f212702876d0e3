"""Rows are grouped by input or person; what is kept of a unit follows from that unit alone."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from memarc.data.rows import Rows
from memarc.data.units import by_input, by_person


def pairs_as_rows(pairs):
    return Rows(columns=([x for x, _ in pairs], [y for _, y in pairs]), labels=None)


def people_as_rows(pairs):
    """Rows with labels of (person, text); the label is the text's length."""
    texts = [text for _, text in pairs]
    return Rows((texts,), np.array([len(x) for x in texts], np.int32), [user for user, _ in pairs])


ROWS = pairs_as_rows([("b", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("b", "1")])


def test_inputs_keep_their_first_references():
    kept, members = by_input(ROWS, 2)
    pairs = list(zip(*kept.columns, strict=True))
    assert pairs == [("b", "1"), ("b", "3"), ("a", "2"), ("c", "4")]
    assert members.tolist() == [[0, 1], [2, -1], [3, -1]]
    assert members.dtype == np.int64


def test_no_rows_make_no_groups():
    kept, members = by_input(pairs_as_rows([]), 3)
    assert (len(kept), members.shape) == (0, (0, 3))


def units(grouped):
    """Person -> the texts that are kept, of a result of `by_person`."""
    kept, members = grouped
    assert sorted(members[members >= 0].tolist()) == list(range(len(kept)))
    assert kept.labels.tolist() == [len(text) for text in kept.columns[0]]
    found = {}
    for rows in members:
        (user,) = {kept.users[row] for row in rows if row >= 0}
        assert user not in found
        found[user] = [kept.columns[0][row] for row in rows if row >= 0]
    return found


people = strategies.lists(
    strategies.tuples(strategies.sampled_from("pqrs"), strategies.sampled_from(["", "a", "bb"])),
    max_size=14,
)


@pytest.mark.checklist("32b", 31)
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    pairs=people,
    size=strategies.integers(1, 4),
    gone=strategies.sampled_from("pqrs"),
    by=strategies.sampled_from(["input", "person"]),
    data=strategies.data(),
)
def test_removing_a_unit_removes_its_group_and_changes_no_other(pairs, size, gone, by, data):
    def groups(pairs):
        if by == "person":
            return units(by_person(people_as_rows(pairs), size))
        kept, members = by_input(pairs_as_rows(pairs), size)
        texts = [[kept.columns[1][row] for row in rows if row >= 0] for rows in members]
        return dict(zip([kept.columns[0][rows[0]] for rows in members], texts, strict=True))

    whole = groups(pairs)
    rest = groups([pair for pair in pairs if pair[0] != gone])
    assert rest == {user: rows for user, rows in whole.items() if user != gone}
    assert list(rest) == [user for user in whole if user != gone]  # In the same order.
    sizes = {user: sum(user == x for x, _ in pairs) for user, _ in pairs}
    assert {user: len(rows) for user, rows in whole.items()} == {
        user: min(size, count) for user, count in sizes.items()
    }
    if by == "person":  # Neither does the order of the file.
        assert groups(data.draw(strategies.permutations(pairs))) == whole


def test_the_kept_rows_of_a_person_are_no_function_of_their_place_and_differ_between_people():
    texts = [f"text {i}" for i in range(40)]
    pairs = [(user, text) for text in texts for user in "pq"]
    found = units(by_person(people_as_rows(pairs), 10))
    assert found["p"] != found["q"] and len({*found["p"]}) == 10
    # A quarter of the 40: were the first kept, these would be 0 to 9, whose mean is 4.5.
    assert 9 < np.mean([texts.index(text) for user in "pq" for text in found[user]]) < 30


def test_copies_of_a_row_are_rows_and_do_not_stand_or_fall_together():
    """Were copies of one hash, each person would keep four copies, or four other rows."""
    pairs = [(str(user), text) for user in range(30) for text in ["x"] * 4 + list("abcd")]
    kept = units(by_person(people_as_rows(pairs), 4))
    counts = [texts.count("x") for texts in kept.values()]
    assert 1.5 < np.mean(counts) < 2.5 and {1, 2, 3} <= set(counts)


def test_units_of_no_rows_and_people_without_names_are_refused():
    with pytest.raises(ValueError, match="A unit keeps at most 0 rows; give at least 1"):
        by_input(ROWS, 0)
    with pytest.raises(ValueError, match="The rows name no people; give Rows users"):
        by_person(ROWS, 2)
