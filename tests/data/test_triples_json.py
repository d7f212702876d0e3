"""Triples become one line each, and bad records are refused by file and number."""

import gzip
import json

import pytest

from memarc.data.references import references
from memarc.data.triples_json import read_file

GOOD = {"tripleset": [["s", "p", "o"]], "annotations": [{"source": "x", "text": "t"}]}


@pytest.fixture
def write(tmp_path):
    def write(records):
        path = tmp_path / "dev.json"
        path.write_text(records if isinstance(records, str) else json.dumps(records))
        return path

    return write


def test_triples_are_written_in_one_line_and_every_text_is_a_row(write):
    record = {
        "tripleset": [["A_B", "is_of_(m)", '"C_D, é"'], ["[TABLECONTEXT]", "TITLE", "x : y"]],
        "annotations": [{"source": "webnlg", "text": " One. "}, {"text": "Two."}],
        "category": "Airport",
    }
    rows = read_file(write([record, GOOD]))
    first = 'A B : is_of_(m) : "C D, é" | [TABLECONTEXT] : TITLE : x : y'
    assert rows.columns == ([first, first, "s : p : o"], ["One.", "Two.", "t"])
    assert rows.labels is None


def test_an_empty_list_has_no_rows(write):
    assert len(read_file(write([]))) == 0


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ('[\n{"a": 1},\n}', r"dev\.json, line 3, column 1: this is not JSON; repair it"),
        ("", "line 1, column 1: this is not JSON"),
        ({"tripleset": []}, r"dev\.json holds a dict; give a list of records"),
        ([GOOD, 7], r"dev\.json, record 2: no tripleset; a record needs a list"),
        ([GOOD, {"annotations": [{"text": "t"}]}], "record 2: no tripleset"),
        ([{**GOOD, "tripleset": []}], "record 1: no tripleset"),
        ([{"tripleset": GOOD["tripleset"]}], "record 1: no annotations"),
        ([{**GOOD, "annotations": []}], "record 1: no annotations"),
        ([{**GOOD, "tripleset": [["s", "p"]]}], "record 1: triple 1 is not a list of"),
        (
            [{**GOOD, "tripleset": [["s", "p", 3]]}],
            "triple 1 is not a list of three",
        ),
        ([{**GOOD, "tripleset": ["spo"]}], "triple 1 is not a list of three texts"),
        ([GOOD, {**GOOD, "annotations": [{"text": " "}]}], "record 2: annotation 1 has no text"),
        ([{**GOOD, "annotations": [{"source": "x"}]}], "annotation 1 has no text"),
        ([{**GOOD, "annotations": ["t"]}], "annotation 1 has no text; fill it in or remove"),
    ],
)
def test_a_bad_record_is_refused_by_file_and_number(write, records, message):
    with pytest.raises(ValueError, match=message):
        read_file(write(records))


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"[]")[:-9], gzip.compress(b'["\xff"]')],
    ids=["no gzip", "cut", "no UTF-8"],
)
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "dev.json.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"dev\.json\.gz is damaged .*fetch it again"):
        read_file(path)


@pytest.mark.parametrize(
    ("name", "records", "inputs", "rows"),
    [
        ("dart/dart-v1.1.1-full-dev", 2_768, 2_721, 6_980),
        ("dart/dart-v1.1.1-full-test", 5_097, 4_159, 12_551),
        ("webnlg2017/train", 6_940, 6_893, 18_102),
        ("webnlg2017/dev", 872, 871, 2_268),
    ],
)
def test_published_files_have_their_published_sizes(shared, name, records, inputs, rows):
    """Some triplesets recur, so inputs are fewer; none is confused with another."""
    path = shared / "data" / f"{name}.json.gz"
    found = read_file(path)
    assert (len(found), len(references(found)[0])) == (rows, inputs)
    written = json.loads(gzip.decompress(path.read_bytes()))
    assert len(written) == records
    assert len({json.dumps(record["tripleset"]) for record in written}) == inputs
