"""Records survive the file; tables hold what records hold."""

import json

import pytest

from memarc.report import records, tables


@pytest.mark.parametrize("epsilon", [8.0, float("inf")])
def test_a_record_comes_back_as_it_was_and_is_strict_json(tmp_path, epsilon, example):
    record = example(epsilon=epsilon)
    path = records.write(record, tmp_path)
    assert records.read(path) == record
    json.loads(path.read_text(), parse_constant=pytest.fail)  # No Infinity or NaN.
    assert [item.name for item in tmp_path.iterdir()] == ["record.json"]


def test_a_file_that_is_no_record_is_refused(tmp_path, example):
    path = records.write(example(), tmp_path)
    content = json.loads(path.read_text())
    del content["epsilon"]
    path.write_text(json.dumps({**content, "extra": 1}))
    with pytest.raises(ValueError, match=r"lacks \['epsilon'\] and has unknown \['extra'\]"):
        records.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        records.read(path)
    with pytest.raises(ValueError, match="cannot be read"):
        records.read(tmp_path / "absent")


def test_a_table_holds_one_row_a_record(example):
    text = tables.table([example(), example(method="side", epsilon=3.0)], tables.QUICK, "markdown")
    header, _, first, second = text.splitlines()
    assert "method" in header and "kept for backward" in header
    assert all(part in first for part in ("lora", "81.2", "inf", "1e-05", "1,234", "3.0 MiB", "61"))
    assert "3.000" in second and "side" in second


def test_unknown_columns_and_styles_are_named(example):
    with pytest.raises(ValueError, match=r"Unknown columns \['speed'\]"):
        tables.table([example()], ("speed",), "terminal")
    with pytest.raises(ValueError, match="Unknown style 'html'"):
        tables.table([example()], tables.QUICK, "html")


def test_the_headline_is_the_first_score(example):
    assert example().headline == 0.8123


def test_outside_a_repository_the_commit_is_unknown(tmp_path):
    assert records.commit(tmp_path) == "unknown"
