"""Tables into pages."""

import pytest

from experiments import tabulate


def test_a_table_replaces_what_stands_between_its_marks():
    page = "a\n<!-- table: x -->\nold\n<!-- end of table -->\nb <!-- table: y --> c"
    wanted = "a\n<!-- table: x -->\nnew\n<!-- end of table -->\nb <!-- table: y --> c"
    assert tabulate.insert(page, "x", "new") == wanted
    assert tabulate.insert(wanted, "x", "new") == wanted
    for mark in ("y", "z"):
        with pytest.raises(ValueError, match="add both lines"):
            tabulate.insert(page, mark, "new")
