"""Tables into pages."""

import pytest

from memarc.report import pages


def test_a_table_replaces_what_stands_between_its_marks():
    page = "a\n<!-- table: x -->\nold\n<!-- end of table -->\nb <!-- table: y --> c"
    wanted = "a\n<!-- table: x -->\nnew\n<!-- end of table -->\nb <!-- table: y --> c"
    assert pages.insert(page, "x", "new") == wanted
    assert pages.insert(wanted, "x", "new") == wanted
    for mark in ("y", "z"):
        with pytest.raises(ValueError, match="add both lines"):
            pages.insert(page, mark, "new")
