"""What a compiler says when a program does not fit its device is read as bytes."""

import pytest

from memarc.report import targets


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory. Used 25.50G of 15.75G hbm.", 51 * 2**29),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (27.97G) exceeds available HBM (15.75G).",
            round(27.97 * 2**30),
        ),
        ("RESOURCE_EXHAUSTED: no number", 0),
        ("INVALID_ARGUMENT: Used 3G of it.", None),
    ],
)
def test_needed_bytes_are_read_off_the_message(message, wanted):
    assert targets.needed_bytes(RuntimeError(message)) == wanted
