"""E2E files are read record for record, and bad ones are refused by file and line."""

import gzip

import pytest

from memarc.data.e2e_csv import read_file
from memarc.data.references import references


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "devset.csv"
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return write


def test_quotes_line_ends_and_commas_belong_to_texts_and_outer_spaces_do_not(write):
    rows = read_file(
        write('mr,ref\r\n"name[A], near[é]"," He said ""so"",\r\n then. "\r\nm[n],r\r\n')
    )
    inputs, targets = rows.columns
    assert inputs == ["name : A | near : é", "m : n"]
    assert targets == ['He said "so",\r\n then.', "r"]
    assert rows.labels is None


def test_columns_are_found_by_name_in_a_compressed_file(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b'"n","ref","mr"\n1,"b",a[e]\n'))
    rows = read_file(path)
    assert rows.columns == (["a : e"], ["b"])


def test_blank_lines_and_the_mark_before_a_text_are_no_rows(write):
    rows = read_file(write("\ufeffmr,ref\na[e],b\n\nc[e],d\n\n"))
    assert rows.columns == (["a : e", "c : e"], ["b", "d"])
    with pytest.raises(ValueError, match="line 5: 1 cells"):
        read_file(write("\ufeffmr,ref\na[e],b\n\nc[e],d\ne\n"))


def test_a_file_with_a_header_alone_has_no_rows(write):
    assert len(read_file(write("mr,ref\n"))) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mr\na\n", r"devset\.csv, line 1: no column ref among the 1 columns there .* mr, ref"),
        ("", "line 1: no column mr among the 0 columns"),
        ("mr,ref\na[e],b\na\n", r"devset\.csv, line 3: 1 cells where the header has 2; repair"),
        ('mr,ref\na[e],"b\nb"\na,b,c\n', "line 4: 3 cells where the header has 2"),
        ("mr,ref\na[e], \n", "line 2: ref is empty; fill in or remove"),
        ("mr,ref\n,b\n", "line 2: mr is empty"),
        ('mr,ref\na,"b\nc,d\n', "line 2: the record that begins here cannot be read .*end of data"),
        ('mr,ref\na[e],b\na,"b"c\n', "line 3: the record .* close and double its quotes"),
        ("mr,ref\na[e],b\nm,b\n", r"line 3: its mr is not of the form 'slot\[value\], slot"),
        ("mr,ref\n[e],b\n", "line 2: its mr is not"),
        ("mr,ref\na[b]c[d],e\n", "line 2: its mr is not"),
        ("mr,ref\na[b[c]],d\n", "line 2: its mr is not"),
        ("mr,ref\na[b] or so,d\n", "line 2: its mr is not"),
    ],
)
def test_a_broken_record_is_refused_by_file_and_line(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_file(write(text))


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"mr,ref\na[e],b\n")[:-9], gzip.compress(b"mr,ref\na[e],\xff\n")],
    ids=["no gzip", "cut", "no UTF-8"],
)
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "devset.csv.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"devset\.csv\.gz is damaged from line \d on .*fetch"):
        read_file(path)


@pytest.mark.parametrize(
    ("name", "rows", "inputs", "most"),
    [
        ("trainset", 42_061, 4_862, 46),
        ("devset", 4_672, 547, 43),
        ("testset_w_refs", 4_693, 630, 45),
    ],
)
def test_published_files_have_their_published_sizes(shared, name, rows, inputs, most):
    found = read_file(shared / "data" / "e2e" / f"{name}.csv.gz")
    texts = references(found)[1]
    assert (len(found), len(texts), max(map(len, texts))) == (rows, inputs, most)


def test_the_published_file_without_references_is_refused(shared):
    with pytest.raises(ValueError, match=r"no column mr .* among the 1 columns"):
        read_file(shared / "data" / "e2e" / "testset.csv.gz")
