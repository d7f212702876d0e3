"""Counts of private rows, for those who ask."""

import json

import numpy as np
import pytest

from memarc.batches import INPUT_IDS
from memarc.data import look
from memarc.data.dataset import Dataset
from memarc.data.tokenize import Encoded
from tests import commands


def dataset(rows, labels, members=None, cut=0):
    ids = np.array([x for row in rows for x in row], np.int32)
    offsets = np.cumsum([0, *map(len, rows)])
    tokens = {INPUT_IDS: ids, "token_type_ids": np.zeros_like(ids)}
    labels = np.array(labels, np.int32)
    return Dataset(Encoded(tokens, offsets, cut), labels, members, 0, 9)


def test_units_rows_cuts_lengths_and_labels_by_hand():
    members = np.array([[0, 2], [1, -1]])
    found = look._of(dataset([[1, 2], [3], [4, 5, 6]], [2, 0, 2], members, cut=1), 4)
    assert found == {
        "units": 2,
        "rows": 3,
        "cut_rows": 1,
        "tokens": [1, 2, 3],
        "rows_by_label": [1, 0, 2, 0],
        "warnings": [],
    }


@pytest.mark.parametrize(
    ("rows", "labels", "cut", "warnings"),
    [
        ([], [], 0, ["there is one row or none"]),
        ([[1]], [0], 0, ["there is one row or none"]),
        ([[7], [7]], [0, 1], 0, ["all rows are the same text, or empty"]),
        ([[1, 2], [3, 4]], [0, 1], 2, ["all rows are cut to the longest length"]),
        ([[1, 2], [3, 4]], [1, 1], 1, ["all rows have one label"]),
    ],
)
def test_what_is_likely_a_mistake_is_told(rows, labels, cut, warnings):
    assert look._of(dataset(rows, labels, cut=cut), 2)["warnings"] == warnings


def test_the_command_says_that_it_is_not_private_and_trains_nothing(tmp_path):
    done = commands.run(
        "experiments.run",
        "--config=configs/quickstart.py:smoke",
        "--only=lora",
        f"--workdir={tmp_path / 'out'}",
        "--inspect_private",
    )
    assert done.returncode == 0, done.stderr
    first, line = done.stdout.splitlines()
    found = json.loads(line)
    assert first == look.NOT_PRIVATE and found["name"] == "lora"
    assert sum(found["train"]["rows_by_label"]) == found["train"]["rows"] > 0
    assert not (tmp_path / "out").exists()
