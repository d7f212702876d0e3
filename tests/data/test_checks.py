"""Fields are refused by name, with what was given and what is wanted."""

import pytest

from memarc.data.checks import check_choice, check_text, check_whole


def test_good_values_pass():
    check_choice("unit", "row", ("row", "input"))
    check_whole("rows", 3, 3)
    check_text("root", "r", "a folder")


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_choice("unit", "x", ("row", "input")), "unit 'x'; choose one of row, input"),
        (lambda: check_whole("rows", 2, 3), "rows is 2; give a whole number from 3 up"),
        (lambda: check_whole("rows", 3.0, 3), "rows is 3.0"),
        (lambda: check_whole("rows", True, 0), "rows is True"),
        (lambda: check_text("root", "", "a folder"), "root is ''; give a folder"),
        (lambda: check_text("root", 1, "a folder"), "root is 1"),
    ],
)
def test_bad_values_are_refused(check, message):
    with pytest.raises(ValueError, match=message):
        check()
