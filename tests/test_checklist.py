"""Every row of the list of known privacy bugs that this version covers has a test."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent

COVERED = {
    *(str(row) for row in (1, 2, 3, *range(4, 21), 23, *range(26, 29), 30, *range(31, 37), 41)),
    "19b",
}


def test_each_row_is_claimed_by_a_test():
    claimed = set()
    for path in ROOT.rglob("test_*.py"):
        for arguments in re.findall(r"mark\.checklist\(([^)]*)\)", path.read_text()):
            claimed |= set(re.findall(r"[0-9]+b?", arguments))
    assert claimed >= COVERED, sorted(COVERED - claimed)
