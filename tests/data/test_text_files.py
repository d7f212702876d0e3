"""Files are found plain or compressed, and what is wrong with their bytes is of a known kind."""

import gzip

import pytest

from memarc.data import text_files

ADVICE = {"task": "e2e", "advice": "Get them."}


def test_a_plain_file_goes_before_a_compressed_one_and_either_name_finds_that(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress("é\r\nx".encode()))
    for asked in ("a.csv", "a.csv.gz"):
        path = text_files.find(tmp_path, asked, **ADVICE)
        with text_files.open_text(path, newline="") as file:
            assert file.read() == "é\r\nx"
    (tmp_path / "a.csv").write_text("plain", encoding="utf-8")
    with text_files.open_text(text_files.find(tmp_path, "a.csv", **ADVICE), newline="") as file:
        assert file.read() == "plain"


def test_a_missing_file_and_a_missing_folder_are_told_apart(tmp_path):
    message = r"Looked for b or b\.gz of task e2e in .*, which has no such file\. Get them\."
    with pytest.raises(ValueError, match=message):
        text_files.find(tmp_path, "b", **ADVICE)
    with pytest.raises(ValueError, match=r"for b\.gz of task e2e in .*none, which does not exist"):
        text_files.find(tmp_path / "none", "b.gz", **ADVICE)


def damaged_stream():
    whole = bytearray(gzip.compress(b"the same text " * 50, mtime=0))
    whole[12:16] = b"\xff" * 4
    return bytes(whole)


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"text")[:-9], damaged_stream(), gzip.compress(b"\xff")],
    ids=["no gzip", "cut", "garbled", "no UTF-8"],
)
def test_every_kind_of_damage_is_listed(tmp_path, content):
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    with pytest.raises(text_files.DAMAGE), text_files.open_text(path, newline="") as file:
        file.read()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_task_s_file_in_utf_16_is_told_as_such(tmp_path, encoding):
    path = tmp_path / "train.tsv"
    path.write_text("sentence\tlabel\nfine\t1\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"train\.tsv is UTF-16, as Windows programs write it"):
        text_files.open_text(path, newline="\n")
    with text_files.open_text(path, newline="\n", encoding=encoding) as file:
        assert file.readline() == "sentence\tlabel\n"
