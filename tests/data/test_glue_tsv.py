"""Local GLUE files are read row for row, and bad ones are refused by file and line."""

import gzip

import numpy as np
import pytest

from memarc.data.glue_tsv import read_split
from memarc.data.tasks import get_task

SST2 = get_task("sst2")
HEADER = "sentence\tlabel\n"


def read(*arguments):
    return read_split(*arguments, drop_broken=False)


def test_rows_keep_quotes_and_odd_line_breaks_and_lose_trailing_spaces(write_sst2):
    text = 'a "quoted word  \t1\n"open\t0\n \t1\nnext\x85line\u2028é\rhere \t0\n'
    rows = read(SST2, write_sst2(HEADER + text), "train.tsv")
    assert rows.columns == (['a "quoted word', '"open', "", "next\x85line\u2028é\rhere"],)
    assert rows.labels.dtype == np.int32
    assert rows.labels.tolist() == [1, 0, 1, 0]


def test_windows_line_ends_and_a_missing_last_line_end_are_read(write_sst2):
    rows = read(SST2, write_sst2("sentence\tlabel\r\ngood \t1\r\nbad\t0"), "train.tsv")
    assert rows.columns == (["good", "bad"],)
    assert rows.labels.tolist() == [1, 0]


@pytest.mark.parametrize("asked", ["train_9k.tsv", "train_9k.tsv.gz"])
def test_columns_are_found_by_name_in_a_compressed_file_of_another_name(tmp_path, asked):
    (tmp_path / "mnli").mkdir()
    with gzip.open(tmp_path / "mnli" / "train_9k.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("gold_label\tindex\tsentence2\tsentence1\ncontradiction\t7\tno\tyes\n")
    rows = read(get_task("mnli"), str(tmp_path), asked)
    assert (rows.columns, rows.labels.tolist()) == ((["yes"], ["no"]), [2])


def test_a_file_with_a_header_alone_has_no_rows(write_sst2):
    assert len(read(SST2, write_sst2(HEADER), "train.tsv")) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER + "fine\t1\nno label\n",
            r"train\.tsv has broken lines, 1 of 2: line 3: 1 cells where the header has 2",
        ),
        (HEADER + "one\ttoo many\t1\n", r"lines, 1 of 1: line 2: 3 cells where the header has 2"),
        (HEADER + "fine\t1\n\n", "line 3: 1 cells"),
        (HEADER + "fine\t2\n", r"line 2: the label is none of 0, 1 \(task sst2\)"),
        (HEADER + "fine\t\n", "line 2: the label is none of 0, 1"),
        ("text\tlabel\nfine\t1\n", "line 1: no column sentence among the 2 columns there"),
        ("", "line 1: no column sentence, label"),
    ],
)
def test_a_broken_line_is_refused_by_file_and_line(write_sst2, text, message):
    with pytest.raises(ValueError, match=message):
        read(SST2, write_sst2(text), "train.tsv")


def test_broken_lines_are_told_at_once_or_left_out_each_for_itself(write_sst2, caplog):
    good, broken = [f"text {i}\t{i % 2}\n" for i in range(4)], ["x\n", "x\t2\n", "\n"] * 2
    root = write_sst2(HEADER + "".join((*good[:1], *broken, *good[1:])))
    with pytest.raises(
        ValueError, match=r"6 of 10: line 3: .*; line 7: .*; \.\.\.\. Rep"
    ) as caught:
        read(SST2, root, "train.tsv")
    assert "line 8" not in str(caught.value) and "data.drop_broken=True" in str(caught.value)
    found = read_split(SST2, root, "train.tsv", drop_broken=True)
    assert "has broken lines, 6 of 10, which are left out" in caplog.text
    assert found.columns == ([f"text {i}" for i in range(4)],)
    assert found.labels.tolist() == [0, 1, 0, 1]


def test_a_missing_folder_says_what_was_looked_for_and_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match="does not exist") as caught:
        read(get_task("qnli"), str(tmp_path / "none"), "train.tsv")
    message = str(caught.value)
    assert "train.tsv or train.tsv.gz of task qnli" in message
    assert str(tmp_path / "none" / "qnli") in message
    assert "curl -LO https://dl.fbaipublicfiles.com/glue/data/QNLIv2.zip" in message
    assert "mv QNLI " in message


def test_a_missing_file_in_a_folder_that_exists_is_named(write_sst2):
    with pytest.raises(ValueError, match=r"train_9k\.tsv or .*which has no such file"):
        read(SST2, write_sst2(HEADER), "train_9k.tsv")


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"sentence\tlabel\n\xff\t1\n", mtime=0)],
    ids=["no gzip", "no UTF-8"],
)
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "train.tsv.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.tsv\.gz is damaged"):
        read(SST2, str(tmp_path), "train.tsv")


@pytest.mark.parametrize(
    ("task", "file", "counts"),
    [
        ("sst2", "train.tsv", [29780, 37569]),
        ("sst2", "dev.tsv", [428, 444]),
        ("qqp", "dev.tsv", [25545, 14885]),
    ],
)
def test_published_files_have_their_published_label_counts(shared, task, file, counts):
    rows = read(get_task(task), str(shared / "data"), file)
    assert np.bincount(rows.labels).tolist() == counts


@pytest.mark.parametrize(
    ("task", "file", "size"),
    [
        ("qnli", "train_9k.tsv", 8999),
        ("qnli", "dev.tsv", 5463),
        ("mnli", "dev_matched.tsv", 9815),
        ("mnli", "dev_mismatched.tsv", 9832),
    ],
)
def test_published_files_have_their_published_sizes(shared, task, file, size):
    assert len(read(get_task(task), str(shared / "data"), file)) == size
