"""Every known privacy bug that voids a claim has a test or a stated limit; the page says which."""

import pytest

from tests import checklist


def test_the_page_is_the_one_that_the_marks_make():
    text = checklist.page(
        checklist.read_bugs(checklist.BUGS), checklist.find_tests(checklist.ROOT / "tests")
    )
    assert checklist.PAGE.read_text() == text, "run: python -m tests.checklist"
    assert "| open |" not in text


def test_a_row_without_test_or_limit_is_refused_and_so_is_a_mark_without_row():
    bug = checklist.Bug("7", "C", "something", "")
    with pytest.raises(ValueError, match=r"Rows \['7'\] have neither"):
        checklist.page([bug], {})
    with pytest.raises(ValueError, match=r"rows \['8'\] are unknown"):
        checklist.page([bug], {"7": ["a::b"], "8": ["a::c"]})


def test_marks_are_read_off_decorators(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "@pytest.mark.slow\n@pytest.mark.checklist(3, '19b')\ndef test_b(): ...\n\n"
        "def test_c(): ...\n"
    )
    name = f"{tmp_path.name}/test_a.py::test_b"
    assert checklist.find_tests(tmp_path) == {"3": [name], "19b": [name]}
