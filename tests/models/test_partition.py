"""Splitting, joining and editing nested dicts of parameters."""

import pytest

from memarc.models import partition

TREE = {"a": {"kernel": 1, "bias": 2}, "b": {"deep": {"bias": 3}}, "c": 4}


@pytest.mark.checklist(26)
@pytest.mark.parametrize(
    ("chosen", "inside", "outside"),
    [
        (lambda path: True, TREE, {}),
        (lambda path: False, {}, TREE),
        (
            lambda path: path[-1] == "bias",
            {"a": {"bias": 2}, "b": {"deep": {"bias": 3}}},
            {"a": {"kernel": 1}, "c": 4},
        ),
        (lambda path: path == ("b", "deep", "bias"), {"b": {"deep": {"bias": 3}}},
         {"a": {"kernel": 1, "bias": 2}, "c": 4}),
    ],
)  # fmt: skip
def test_split_puts_each_leaf_on_one_side_and_join_undoes_it(chosen, inside, outside):
    assert partition.split(TREE, chosen) == (inside, outside)
    assert partition.join(inside, outside) == partition.join(outside, inside) == TREE


@pytest.mark.checklist(26)
def test_join_refuses_a_leaf_that_both_trees_hold_and_names_it():
    with pytest.raises(ValueError, match=r"Both trees hold \[\('a', 'bias'\)\]; .*either"):
        partition.join({"a": {"bias": 1, "kernel": 2}}, {"a": {"bias": 1}, "c": 3})


def test_get_and_replace_reach_one_place_and_share_the_rest():
    assert partition.get(TREE, ("b", "deep")) == {"bias": 3}
    assert partition.get(TREE, ()) is TREE
    edited = partition.replace(TREE, ("a", "kernel"), 9)
    assert edited == {**TREE, "a": {"kernel": 9, "bias": 2}}
    assert TREE["a"]["kernel"] == 1
    assert edited["b"] is TREE["b"]


def test_replace_refuses_a_path_that_is_not_there():
    with pytest.raises(KeyError):
        partition.replace(TREE, ("z", "kernel"), 9)
