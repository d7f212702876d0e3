"""The paper's split covers the train file once, without overlap, by a fixed seed."""

import numpy as np
import pytest

from memarc.data import splits
from memarc.data.rows import Rows


def numbered(count, word="row"):
    texts = [f"{word} {i}" for i in range(count)]
    return Rows(columns=(texts,), labels=np.arange(count, dtype=np.int32) % 2)


def listed(rows):
    return list(zip(*rows.columns, rows.labels, strict=True))


def cut(rows, seed=splits.PAPER_SEED):
    return splits.cut_paper_split(rows, train_rows=11, validation_rows=3, seed=seed)


def test_the_paper_trains_on_50000_rows_and_validates_on_1000():
    assert (splits.PAPER_TRAIN_ROWS, splits.PAPER_VALIDATION_ROWS) == (50_000, 1_000)


@pytest.mark.parametrize("count", [15, 16, 40])
def test_parts_are_disjoint_and_cover_every_row_once(count):
    rows = numbered(count)
    parts = cut(rows)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (11, 3, count - 14)
    found = [row for part in (parts.train, parts.validation, parts.test) for row in listed(part)]
    assert sorted(found) == sorted(listed(rows))


def test_the_cut_is_shuffled_repeats_for_a_seed_and_changes_with_it():
    rows = numbered(40)
    first = cut(rows).train.columns[0]
    assert first == cut(rows).train.columns[0]
    assert first != cut(rows, seed=1).train.columns[0]
    assert first != rows.columns[0][:11]


@pytest.mark.checklist(31)
def test_the_cut_depends_on_the_number_of_rows_and_not_on_their_content():
    one, other = cut(numbered(40)).train.columns[0], cut(numbered(40, "text")).train.columns[0]
    assert [text.split()[1] for text in one] == [text.split()[1] for text in other]


def test_a_file_that_is_one_row_short_is_refused_with_both_sizes():
    with pytest.raises(
        ValueError, match=r"has 14 rows; split='paper' needs at least 15 \(11 train"
    ):
        cut(numbered(14))


@pytest.mark.parametrize("sizes", [(0, 3), (11, 0)])
def test_an_empty_train_or_validation_part_is_refused(sizes):
    with pytest.raises(ValueError, match="give both at least 1"):
        splits.cut_paper_split(numbered(40), train_rows=sizes[0], validation_rows=sizes[1], seed=0)
