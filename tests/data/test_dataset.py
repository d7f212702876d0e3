"""Rows come back padded as they were written; chunks have fixed shapes and drop nothing."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from memarc.data.dataset import Dataset, check_buckets, padded_chunks
from memarc.data.tokenize import Encoded

PAD = 9
CAP = 7
IDS = [[1, 2, 3], [], [4, 5, 6, 1, 2, 3, 4], [7], [1, 2, 3]]  # Lengths 3, 0, 7, 1, 3.
LABELS = [1, 0, 2, 0, 1]


def make(rows=IDS, labels=LABELS, truncated_rows=2, max_length=CAP):
    flat = [token for row in rows for token in row]
    encoded = Encoded(
        input_ids=np.array(flat, np.int32),
        token_type_ids=np.array([token % 2 for token in flat], np.int32),
        offsets=np.cumsum([0] + [len(row) for row in rows]),
        truncated_rows=truncated_rows,
    )
    return Dataset(
        encoded=encoded, labels=np.array(labels, np.int32), pad_id=PAD, max_length=max_length
    )


def test_rows_are_taken_in_order_and_padded_on_the_right():
    batch = make().take(np.array([3, 0, 1]), 4)
    assert batch["input_ids"].tolist() == [[7, 9, 9, 9], [1, 2, 3, 9], [9, 9, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert batch["labels"].tolist() == [0, 1, 0]
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize("indices", [np.array([], np.int64), []])
def test_taking_nothing_keeps_shapes_and_dtypes(indices):
    batch = make().take(indices, 4)
    shapes = {name: array.shape for name, array in batch.items()}
    assert shapes == {
        "input_ids": (0, 4),
        "attention_mask": (0, 4),
        "token_type_ids": (0, 4),
        "labels": (0,),
    }
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}


def test_datasets_without_rows_or_without_tokens_work():
    assert len(make([], [])) == 0
    assert make([], []).duplicate_rows == 0
    assert make([[], []], [1, 0]).take(np.array([1, 0]), 2)["input_ids"].tolist() == [[9, 9]] * 2


def test_a_row_longer_than_the_length_asked_for_is_refused():
    with pytest.raises(ValueError, match="more than length = 6 tokens"):
        make().take(np.array([0, 2]), 6)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([5], "run from 5 to 5; the dataset has rows 0 to 4"),
        ([-1, 2], "run from -1 to 2"),
        ([0.5], r"float64\[1\]; give a vector of whole numbers"),
        ([[1, 2]], r"int64\[1, 2\]"),
        ([True, False], "bool"),
    ],
)
def test_indices_that_are_no_row_numbers_are_refused(indices, message):
    with pytest.raises(ValueError, match=message):
        make().take(np.array(indices), CAP)


def test_arrays_cannot_be_changed_afterwards():
    dataset = make()
    with pytest.raises(ValueError, match="read-only"):
        dataset.encoded.input_ids[0] = 0
    with pytest.raises(AttributeError):
        dataset.pad_id = 0


def test_parts_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="5 token rows and 4 labels"):
        make(labels=[0, 1, 2, 0])
    with pytest.raises(ValueError, match="A row has 7 tokens, max_length is 6"):
        make(max_length=6)


def test_each_row_goes_to_the_smallest_bucket_that_holds_it():
    dataset = make()
    assert dataset.bucket_of(np.arange(5), (1, 3, 7)).tolist() == [1, 0, 2, 0, 1]
    assert dataset.bucket_of(np.array([2, 0]), (7,)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ((), "give a tuple of whole numbers"),
        ([3, 7], "give a tuple of whole numbers"),
        ((3, 8), "ends with max_length = 7"),
        ((3, 6), "ends with max_length = 7"),
        ((0, 7), "give a tuple of whole numbers"),
        ((3.0, 7), "give a tuple of whole numbers"),
        ((3, 3, 7), "give each length once, increasing"),
        ((5, 3, 7), "give each length once, increasing"),
    ],
)
def test_bad_buckets_are_refused(buckets, message):
    with pytest.raises(ValueError, match=message):
        check_buckets(buckets, 7)


def test_chunks_are_filled_up_with_rows_of_padding():
    chunks = list(padded_chunks(np.array([4, 2, 3, 0, 1]), make(), (3, 7), 3))
    assert [(length, is_padding.tolist()) for length, _, is_padding in chunks] == [
        (3, [False, False, False]),
        (3, [False, True, True]),
        (7, [False, True, True]),
    ]
    assert [batch["labels"].tolist() for _, batch, _ in chunks] == [[1, 0, 1], [0, 0, 0], [2, 0, 0]]
    assert chunks[0][1]["input_ids"].tolist() == [[1, 2, 3], [7, 9, 9], [1, 2, 3]]
    assert chunks[2][1]["input_ids"].tolist() == [[4, 5, 6, 1, 2, 3, 4], [9] * 7, [9] * 7]
    assert chunks[2][1]["attention_mask"].tolist() == [[1] * 7, [0] * 7, [0] * 7]


def test_an_empty_draw_yields_no_chunk():
    assert list(padded_chunks(np.array([], np.int64), make(), (3, 7), 3)) == []


@pytest.mark.checklist(15, 17, 32)
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    lengths=strategies.lists(strategies.integers(0, CAP), max_size=23),
    buckets=strategies.sets(strategies.integers(1, CAP - 1)),
    rows=strategies.integers(1, 5),
    data=strategies.data(),
)
def test_every_drawn_row_is_in_exactly_one_chunk_of_a_fixed_shape(lengths, buckets, rows, data):
    dataset = make([[1] * n for n in lengths], range(len(lengths)))  # The label tells the row.
    drawn = data.draw(strategies.permutations(range(len(lengths))))
    drawn = np.array(drawn[: data.draw(strategies.integers(0, len(lengths)))], np.int64)
    buckets = (*sorted(buckets), CAP)
    found = []
    for length, batch, is_padding in padded_chunks(drawn, dataset, buckets, rows):
        assert length in buckets
        assert batch["input_ids"].shape == (rows, length)
        assert batch["labels"].shape == is_padding.shape == (rows,)
        sizes = batch["attention_mask"].sum(1)[~is_padding]
        rows_here = batch["labels"][~is_padding]
        assert sizes.tolist() == [lengths[i] for i in rows_here]
        assert not batch["attention_mask"][is_padding].any()
        assert (batch["input_ids"][batch["attention_mask"] == 0] == PAD).all()
        found.extend(rows_here.tolist())
    assert sorted(found) == sorted(drawn.tolist())


@pytest.mark.parametrize("rows", [0, -2])
def test_chunks_without_rows_are_refused(rows):
    with pytest.raises(ValueError, match=f"rows is {rows}"):
        list(padded_chunks(np.array([0]), make(), (7,), rows))


@pytest.mark.checklist(32)
def test_duplicates_and_truncated_rows_are_counted():
    assert make().duplicate_rows == 1
    assert make(labels=[1, 0, 2, 0, 0]).duplicate_rows == 0
    assert make().truncated_rows == 2
