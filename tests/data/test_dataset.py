"""Examples come back padded as they were written, in fixed shapes; hashes tell contents apart."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from memarc.batches import CLASSIFICATION, GENERATION, KINDS, LABEL_DTYPES, REGRESSION
from memarc.data.dataset import Dataset, check_buckets, padded_chunks
from memarc.data.tokenize import Encoded

PAD = 9
CAP = 7
IDS = [[1, 2, 3], [], [4, 5, 6, 1, 2, 3, 4], [7], [1, 2, 3]]  # Lengths 3, 0, 7, 1, 3.
LABELS = [1, 0, 2, 0, 1]
GROUPS = [[0, 3], [4, 1], [2, -1]]  # Lengths 3, 3, 7; labels 1 and 0, 1 and 0, 2.
MARKS = {CLASSIFICATION: "token_type_ids", REGRESSION: "token_type_ids", GENERATION: "is_target"}
"""Kind -> its second array per token, which holds 1 at odd ids below."""

of_every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind=CLASSIFICATION, *, ids=IDS, marks=None, labels=LABELS, members=None, cap=CAP):
    flat = np.array([token for row in ids for token in row], np.int32)
    odd = flat % 2 if marks is None else np.array(marks, np.int32)
    encoded = Encoded(
        tokens={"input_ids": flat, MARKS[kind]: odd},
        offsets=np.cumsum([0] + [len(row) for row in ids]),
        truncated_rows=2,
    )
    return Dataset(
        encoded=encoded,
        labels=np.array(labels, LABEL_DTYPES[kind]) if kind in LABEL_DTYPES else None,
        members=None if members is None else np.array(members, np.int64),
        pad_id=PAD,
        max_length=cap,
    )


@of_every_kind
def test_rows_are_taken_in_order_and_padded_on_the_right(kind):
    batch = make(kind).take(np.array([3, 0, 1]), 4)
    assert batch["input_ids"].tolist() == [[7, 9, 9, 9], [1, 2, 3, 9], [9, 9, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert batch[MARKS[kind]].tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    dtypes = {np.dtype(np.int32), np.dtype(LABEL_DTYPES.get(kind, np.int32))}
    assert {array.dtype for array in batch.values()} == dtypes
    if kind in LABEL_DTYPES:
        assert batch["labels"].tolist() == [0, 1, 0]


@of_every_kind
def test_groups_are_taken_with_absent_rows_masked(kind):
    batch = make(kind, members=GROUPS).take(np.array([2, 0]), CAP)
    nothing = [PAD] * CAP
    three, one = [1, 2, 3, *[PAD] * 4], [7, *[PAD] * 6]
    assert batch["input_ids"].tolist() == [[[4, 5, 6, 1, 2, 3, 4], nothing], [three, one]]
    assert batch["attention_mask"].sum(-1).tolist() == [[7, 0], [3, 1]]
    odd, first = [1, 0, 1, 0, 0, 0, 0], [1, *[0] * 6]
    assert batch[MARKS[kind]].tolist() == [[[0, 1, 0, 1, 0, 1, 0], [0] * CAP], [odd, first]]
    if kind in LABEL_DTYPES:  # Each row has a label of its own.
        assert batch["labels"].tolist() == [[2, 0], [1, 0]]


def test_examples_may_be_rows_in_another_order():
    dataset = make(members=[4, 2, 0, 1, 3])
    assert dataset.group == () and dataset.lengths.tolist() == [3, 7, 3, 0, 1]
    batch = dataset.take(np.array([4, 2]), 3)
    assert batch["input_ids"].tolist() == [[7, 9, 9], [1, 2, 3]]
    assert batch["labels"].tolist() == [0, 1]


@of_every_kind
@pytest.mark.parametrize(("members", "group"), [(None, ()), (GROUPS, (2,))])
@pytest.mark.parametrize("indices", [[], np.array([], np.int64), np.array([1, 0, 1])])
def test_shapes_and_dtypes_are_those_that_the_dataset_announces(kind, members, group, indices):
    dataset = make(kind, members=members)
    batch = dataset.take(indices, 4)
    assert (dataset.kind, dataset.group) == (kind, group)
    assert batch["input_ids"].shape == (len(indices), *group, 4)
    announced = dataset.abstract(len(indices), 4)
    assert {name: (x.shape, x.dtype) for name, x in announced.items()} == {
        name: (x.shape, x.dtype) for name, x in batch.items()
    }


@of_every_kind
@pytest.mark.parametrize("members", [None, np.zeros(0), np.zeros((0, 2))])
def test_datasets_without_rows_work(kind, members):
    dataset = make(kind, ids=[], labels=[], members=members)
    assert len(dataset) == len(dataset.lengths) == 0
    assert dataset.take([], 4)[MARKS[kind]].shape == (0, *dataset.group, 4)


def test_datasets_without_tokens_work():
    batch = make(ids=[[], []], labels=[1, 0]).take(np.array([1, 0]), 2)
    assert batch["input_ids"].tolist() == [[PAD, PAD]] * 2
    assert batch["labels"].tolist() == [0, 1]


@pytest.mark.parametrize("members", [None, GROUPS])
def test_a_row_longer_than_the_length_asked_for_is_refused(members):
    with pytest.raises(ValueError, match="more than length = 6 tokens"):
        make(members=members).take(np.array([0, 2]), 6)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([5], "run from 5 to 5; the dataset has examples 0 to 4"),
        ([-1, 2], "run from -1 to 2"),
        ([0.5], r"float64\[1\]; give a vector of whole numbers"),
        ([[1, 2]], r"int64\[1, 2\]"),
        ([True, False], "bool"),
    ],
)
def test_indices_that_are_no_numbers_of_examples_are_refused(indices, message):
    with pytest.raises(ValueError, match=message):
        make().take(np.array(indices), CAP)


def test_numbers_of_rows_beyond_the_examples_are_refused():
    with pytest.raises(ValueError, match="run from 3 to 3; the dataset has examples 0 to 2"):
        make(members=GROUPS).take(np.array([3]), CAP)


@of_every_kind
def test_arrays_cannot_be_changed_afterwards(kind):
    dataset = make(kind, members=GROUPS)
    arrays = [*dataset.encoded.tokens.values(), dataset.encoded.offsets, dataset.members]
    for array in [*arrays, dataset.labels] if kind in LABEL_DTYPES else arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        dataset.pad_id = 0


def test_parts_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="5 token rows and 4 labels"):
        make(labels=[0, 1, 2, 0])
    with pytest.raises(ValueError, match="A row has 7 tokens, max_length is 6"):
        make(cap=6)
    dataset = make()
    parts = {"members": None, "pad_id": PAD, "max_length": CAP}
    with pytest.raises(ValueError, match="A dataset of classification has no labels"):
        Dataset(dataset.encoded, None, **parts)
    with pytest.raises(ValueError, match="A dataset of generation has labels"):
        Dataset(make(GENERATION).encoded, dataset.labels, **parts)
    bare = Encoded({"input_ids": np.zeros(0, np.int32)}, np.zeros(1, np.int64), 0)
    with pytest.raises(ValueError, match=r"keys \['input_ids'\]; .*\['input_ids', 'token_type_id"):
        Dataset(bare, np.zeros(0, np.int32), **parts)


@pytest.mark.parametrize(
    "members",
    [
        [0, 1, 2, 3],
        [0, 1, 2, 3, 3],
        [0, 1, 2, 3, 4, -1],
        [0, 1, 2, 3, 5],
        [[0, 1, 2, 3, 4], [-1] * 5],
        [[[0, 1]]],
    ],
)
def test_examples_that_do_not_share_out_the_rows_are_refused(members):
    with pytest.raises(ValueError, match=r"members are int64\[.* of 5 rows; give each row to exac"):
        make(GENERATION, members=members)


def test_each_example_goes_to_the_smallest_bucket_that_holds_its_longest_row():
    dataset = make()
    assert dataset.lengths.tolist() == [3, 0, 7, 1, 3]
    assert dataset.bucket_of(np.arange(5), (1, 3, 7)).tolist() == [1, 0, 2, 0, 1]
    assert dataset.bucket_of(np.array([2, 0]), (7,)).tolist() == [0, 0]
    grouped = make(members=GROUPS)
    assert grouped.lengths.tolist() == [3, 3, 7]
    assert grouped.bucket_of(np.array([2, 0, 1]), (1, 3, 7)).tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match="ends with max_length = 7"):
        dataset.bucket_of(np.array([0]), (5,))


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


@of_every_kind
def test_chunks_of_groups_are_filled_up_with_groups_of_padding(kind):
    chunks = list(padded_chunks(np.array([2, 0, 1]), make(kind, members=GROUPS), (3, 7), 3))
    assert [(length, is_padding.tolist()) for length, _, is_padding in chunks] == [
        (3, [False, False, True]),
        (7, [False, True, True]),
    ]
    for length, batch, is_padding in chunks:
        assert {batch[key].shape for key in batch if key != "labels"} == {(3, 2, length)}
        assert (batch["input_ids"][is_padding] == PAD).all()
        assert not batch["attention_mask"][is_padding].any()
        assert not batch[MARKS[kind]][is_padding].any()
    assert chunks[0][1]["input_ids"][1].tolist() == [[1, 2, 3], [9] * 3]


@pytest.mark.parametrize("members", [None, GROUPS])
def test_an_empty_draw_yields_no_chunk(members):
    assert list(padded_chunks(np.array([], np.int64), make(members=members), (3, 7), 3)) == []


@pytest.mark.checklist(15, 17, 32)
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    lengths=strategies.lists(strategies.integers(0, CAP), max_size=23),
    buckets=strategies.sets(strategies.integers(1, CAP - 1)),
    rows=strategies.integers(1, 5),
    data=strategies.data(),
)
def test_every_drawn_row_is_in_exactly_one_chunk_of_a_fixed_shape(lengths, buckets, rows, data):
    # The label tells the row.
    dataset = make(ids=[[1] * n for n in lengths], labels=range(len(lengths)))
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
@of_every_kind
def test_truncated_rows_are_counted(kind):
    assert make(kind).truncated_rows == 2


def hashes(*args, **changes):
    return make(*args, **changes).fingerprint()


@of_every_kind
@pytest.mark.parametrize("members", [None, GROUPS])
def test_fingerprints_change_with_any_token_mark_length_and_label(kind, members):
    rows = [*IDS[:4], [1, 2, 5]]  # No two are equal, or changes of either would look alike.
    found = {hashes(kind, members=members, ids=rows)}
    flat = [token for row in rows for token in row]
    odd = [token % 2 for token in flat]
    for place in range(len(flat)):
        marks = [mark ^ (i == place) for i, mark in enumerate(odd)]
        found.add(hashes(kind, members=members, ids=rows, marks=marks))
        changed = [token + (i == place) for i, token in enumerate(flat)]
        ids = [changed[:3], [], changed[3:10], [changed[10]], changed[11:]]
        found.add(hashes(kind, members=members, ids=ids, marks=odd))
    found.add(hashes(kind, members=members, ids=[*rows[:4], [1, 2]]))
    found.add(hashes(kind, members=members, ids=[*rows[:3], [7, 1], [2, 5]]))  # The same tokens.
    count = 1 + 2 * len(flat) + 2
    if kind in LABEL_DTYPES:
        for labels in ([1, 0, 0, 0, 1], [2] * 5):
            found.add(hashes(kind, members=members, ids=rows, labels=labels))
        count += 2
    found.add(hashes(kind, members=members, ids=rows[::-1]))  # Order counts.
    assert len(found) == count + 1


@of_every_kind
def test_the_same_rows_under_another_unit_are_another_data_set(kind):
    units = (None, GROUPS, [[0], [1], [2], [3], [4]])
    found = [hashes(kind, members=members) for members in units]
    assert len(set(found)) == 3
    assert hashes(kind, members=range(5)) == found[0]


def test_the_same_tokens_of_another_kind_are_another_data_set():
    labels = {"labels": [0] * 5}
    assert len({hashes(kind, **labels) for kind in KINDS}) == 3
