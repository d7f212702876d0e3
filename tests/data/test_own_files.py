"""A user's own files are read by their ends, and messages quote nothing that a row holds."""

import gzip
import json

import pyarrow.parquet
import pytest

from memarc.data import own_files

SECRET = "Zebediah"
"""A word of a private row, which no message may hold."""


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        content = content if isinstance(content, bytes) else content.encode("utf-8")
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write


def cells(path, *wanted, encoding="utf-8"):
    table = own_files.read(path, wanted, encoding)
    return [list(table.columns[name]) for name in wanted], list(table.lines)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_quotes_line_ends_and_the_mark_of_csv_are_read(write, name):
    text = '\ufeffid,note,ward\r\n1,"a, ""b""\r\nc",x\r\n\r\n2,é,"y"\r\n'
    found, lines = cells(write(name, text), "ward", "note")
    assert found == [["x", "y"], ['a, "b"\r\nc', "é"]]
    assert lines == [2, 5]


def test_tsv_has_no_quotes(write):
    found, _ = cells(write("a.tsv", 'note\tward\nsaid "no\tx\n'), "note", "ward")
    assert found == [['said "no'], ["x"]]


def test_json_lines_keep_lists_and_numbers(write):
    rows = [{"a": [1], "b": 2.5}, {"b": None, "a": "x", "c": 1}]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    found, lines = cells(write("a.jsonl", text), "a", "b")
    assert found == [[[1], "x"], [2.5, None]] and lines == [1, 2]


def test_another_encoding_is_read_if_it_is_stated(write):
    path = write("a.csv", "note\nÄrger\n".encode("cp1252"))
    assert cells(path, "note", encoding="cp1252")[0] == [["Ärger"]]
    wide = write("b.csv", "note\nÄrger\n".encode("utf-16"))
    assert cells(wide, "note", encoding="utf-16")[0] == [["Ärger"]]
    with pytest.raises(ValueError, match=r"UTF-16, as Windows programs write it.*'utf-16'"):
        own_files.read(wide, ("note",), "utf-8")


def test_a_text_beyond_the_limit_of_the_csv_module_is_read(write):
    assert cells(write("a.csv", "note\n" + "x" * 200_000), "note")[0] == [["x" * 200_000]]


def test_parquet_gives_columns_and_names_for_numbers_that_stand_for_them(tmp_path):
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "note": {}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pyarrow.table({"note": ["a", None, "c"], "label": [1, 0, -1]})
    table = table.replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found, lines = cells(str(tmp_path / "a.parquet"), "label", "note")
    assert found == [["yes", "no", None], ["a", None, "c"]] and lines == [1, 2, 3]
    with pytest.raises(ValueError, match=r"has no column \['x'\]; its columns are"):
        own_files.read(str(tmp_path / "a.parquet"), ("x",), "utf-8")


def save_set(folder, tables, **state):
    """A folder as Dataset.save_to_disk writes it."""
    folder.mkdir()
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pyarrow.ipc.new_stream(str(folder / name), table.schema) as stream:
            stream.write_table(table)
    files = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, **state}))
    return str(folder)


def test_a_saved_data_set_is_read_part_after_part(tmp_path):
    parts = [pyarrow.table({"n": [1, 2], "t": ["a", "b"]}), pyarrow.table({"n": [3], "t": ["c"]})]
    assert cells(save_set(tmp_path / "set", parts), "t")[0] == [["a", "b", "c"]]
    chosen = save_set(tmp_path / "chosen", parts, _indices_data_files=[{"filename": "i.arrow"}])
    with pytest.raises(ValueError, match=r"chosen rows only; save flatten_indices\(\)"):
        own_files.read(chosen, ("t",), "utf-8")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["set"]}')
    with pytest.raises(ValueError, match=r"holds several sets; give one of .*set"):
        own_files.read(str(tmp_path), ("t",), "utf-8")


BROKEN = [
    ("a.csv", f"{SECRET},ward\nx,y\n", r"line 1: no column note among the 2 columns there"),
    ("a.csv", "Note,ward\nx,y\n", r"no column note \(did you mean 'Note'\?\)"),
    ("a.csv", "note,note\nx,y\n", "line 1: 2 column note"),
    ("a.csv", f"note\n\n{SECRET},{SECRET}\n", "line 3: 2 cells where the header has 1"),
    ("a.csv", f'note\n"{SECRET}\n', "line 2: the record that begins here cannot be read"),
    ("a.csv", b"note\nfine\nZebediah\xff\n", r"damaged from line 3 on \(not utf-8\)"),
    ("a.tsv", f"note\t\n{SECRET}\n", "line 2: 1 cells where the header has 2"),
    ("a.jsonl", f'{{"note": 1}}\n{{"note": {SECRET}}}\n', "line 2, column 10: this is not JSON"),
    ("a.jsonl", f'{{"{SECRET}": 1}}\n', "line 1: the object has no field note"),
    ("a.jsonl", f'"{SECRET}"\n', "line 1: this is a JSON str; give an object"),
    (
        "a.csv",
        "note,ward\na\nb,1\n" + f"{SECRET},,\n" * 7,
        r"line 2: 1 cells where the header has 2; .*as well: line 4, 5, 6, 7, 8 and 2 more\)",
    ),
    (
        "a.jsonl",
        f'{SECRET}\n{{"note": 1}}\n[2]\n{{"{SECRET}": 1}}\n',
        r"line 1, column 1: this is not JSON; repair it \(broken as well: line 3, 4\)",
    ),
    ("a.txt", SECRET, r"ends in '.txt'; give a file that ends in .csv"),
    ("a.parquet", SECRET, r"cannot be read as Parquet \(ArrowInvalid\)"),
]


@pytest.mark.checklist(18)
@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_a_broken_file_is_refused_by_line_and_quotes_no_row(write, name, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        own_files.read(write(name, content), ("note",), "utf-8")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_or_set_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file or folder .*gone\.csv"):
        own_files.read(str(tmp_path / "gone.csv"), ("note",), "utf-8")
    with pytest.raises(ValueError, match=r"a folder without state\.json"):
        own_files.read(str(tmp_path), ("note",), "utf-8")
    with pytest.raises(ValueError, match=r"has no dataset_info\.json"):
        own_files.read(f"{tmp_path}:train", ("note",), "utf-8")


def test_many_bad_rows_are_counted_and_a_few_named():
    table = own_files.Table("a.csv", {"x": range(9)}, range(2, 11))
    with pytest.raises(ValueError, match=r"a.csv, column x: bad on line 2, 3, 4, 5, 6 and 4 more"):
        table.refuse("x", [True] * 9, "bad")
    table.refuse("x", [False] * 9, "bad")
