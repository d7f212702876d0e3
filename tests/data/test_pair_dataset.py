"""Examples come back padded as they were written, rows or groups, and hash by content."""

import numpy as np
import pytest

from memarc.data.dataset import padded_chunks
from memarc.data.pair_dataset import PairDataset
from memarc.data.prompts import EncodedPairs

PAD = 9
CAP = 6
ROWS = [[1, 2, 3], [4, 2, 5, 6, 7, 8], [1, 2], [5, 6, 2, 7]]  # Lengths 3, 6, 2, 4.
PROMPTS = [2, 2, 1, 3]
BY_ROW = [0, 1, 2, 3]
BY_GROUP = [[0, 1], [2, -1], [3, -1]]


def make(members=BY_ROW, rows=ROWS, prompts=PROMPTS, max_length=CAP):
    encoded = EncodedPairs(
        input_ids=np.array([token for row in rows for token in row], np.int32),
        offsets=np.cumsum([0] + [len(row) for row in rows]),
        prompt_lengths=np.array(prompts, np.int32),
        truncated_rows=1,
    )
    members = np.array(members, np.int64)
    return PairDataset(encoded=encoded, members=members, pad_id=PAD, max_length=max_length)


def test_rows_are_taken_in_order_and_targets_are_marked():
    batch = make().take(np.array([3, 0]), 5)
    assert batch["input_ids"].tolist() == [[5, 6, 2, 7, 9], [1, 2, 3, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
    assert batch["is_target"].tolist() == [[0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}


def test_groups_are_taken_with_absent_references_masked():
    batch = make(BY_GROUP).take(np.array([1, 0]), 6)
    assert batch["input_ids"].tolist() == [
        [[1, 2, 9, 9, 9, 9], [9] * 6],
        [[1, 2, 3, 9, 9, 9], [4, 2, 5, 6, 7, 8]],
    ]
    assert batch["attention_mask"].tolist() == [
        [[1, 1, 0, 0, 0, 0], [0] * 6],
        [[1, 1, 1, 0, 0, 0], [1] * 6],
    ]
    assert batch["is_target"].tolist() == [
        [[0, 1, 0, 0, 0, 0], [0] * 6],
        [[0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1]],
    ]


@pytest.mark.parametrize(("members", "shape"), [(BY_ROW, (0, 4)), (BY_GROUP, (0, 2, 4))])
def test_taking_nothing_keeps_shapes_and_dtypes(members, shape):
    batch = make(members).take([], 4)
    assert {array.shape for array in batch.values()} == {shape}
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize("members", [np.zeros(0), np.zeros((0, 2))])
def test_a_dataset_without_rows_works(members):
    dataset = make(members, rows=[], prompts=[])
    assert len(dataset) == len(dataset.lengths) == 0
    assert dataset.take([], 4)["is_target"].shape == (0, *members.shape[1:], 4)
    assert dataset.fingerprint() != dataset.unordered_fingerprint()


def test_the_length_of_a_group_is_that_of_its_longest_row():
    assert make().lengths.tolist() == [3, 6, 2, 4]
    dataset = make(BY_GROUP)
    assert dataset.lengths.tolist() == [6, 2, 4]
    assert dataset.bucket_of(np.array([2, 0, 1]), (2, 4, 6)).tolist() == [1, 2, 0]


def test_chunks_of_groups_are_filled_up_with_groups_of_padding():
    chunks = list(padded_chunks(np.array([0, 1, 2]), make(BY_GROUP), (4, 6), 3))
    assert [(length, is_padding.tolist()) for length, _, is_padding in chunks] == [
        (4, [False, False, True]),
        (6, [False, True, True]),
    ]
    for length, batch, is_padding in chunks:
        assert {array.shape for array in batch.values()} == {(3, 2, length)}
        assert (batch["input_ids"][is_padding] == PAD).all()
        assert not batch["attention_mask"][is_padding].any()
        assert not batch["is_target"][is_padding].any()
    assert chunks[0][1]["input_ids"][0].tolist() == [[1, 2, 9, 9], [9] * 4]
    assert list(padded_chunks(np.array([], np.int64), make(BY_GROUP), (6,), 3)) == []


def test_a_row_longer_than_the_length_asked_for_is_refused():
    for members in (BY_ROW, BY_GROUP):
        with pytest.raises(ValueError, match="more than length = 5 tokens"):
            make(members).take(np.array([0, 1]), 5)


def test_indices_beyond_the_examples_and_bad_buckets_are_refused():
    with pytest.raises(ValueError, match="run from 3 to 3; the dataset has rows 0 to 2"):
        make(BY_GROUP).take(np.array([3]), CAP)
    with pytest.raises(ValueError, match="ends with max_length = 6"):
        make().bucket_of(np.array([0]), (5,))


@pytest.mark.parametrize(
    "members",
    [[0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 3, -1], [0, 1, 2, 4], [[0, 1, 2, 3], [-1] * 4], [[[0, 1]]]],
)
def test_examples_that_do_not_share_out_the_rows_are_refused(members):
    with pytest.raises(ValueError, match=r"members are int64\[.* of 4 rows; give each row to exac"):
        make(members)


def test_a_row_over_the_cap_is_refused_and_arrays_cannot_be_changed():
    with pytest.raises(ValueError, match="A row has 6 tokens, max_length is 5"):
        make(max_length=5)
    dataset = make()
    for array in (dataset.encoded.input_ids, dataset.encoded.prompt_lengths, dataset.members):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.checklist(32)
def test_truncated_rows_are_counted():
    assert make().truncated_rows == 1


def hashes(*args, **kwargs):
    dataset = make(*args, **kwargs)
    return dataset.fingerprint(), dataset.unordered_fingerprint()


@pytest.mark.parametrize("members", [BY_ROW, BY_GROUP])
def test_fingerprints_change_with_any_token_and_any_prompt_length(members):
    found = {hashes(members)}
    for row in range(4):
        for place in range(len(ROWS[row])):
            changed = [list(tokens) for tokens in ROWS]
            changed[row][place] += 1
            found.add(hashes(members, rows=changed))
        longer = [length + (i == row) for i, length in enumerate(PROMPTS)]
        found.add(hashes(members, prompts=longer))
    found.add(hashes(members, rows=[*ROWS[:3], [5, 6, 2]]))
    assert len(found) == len({a for a, _ in found}) == len({b for _, b in found}) == 1 + 15 + 4 + 1


def test_the_unordered_fingerprint_does_not_change_with_the_order_of_examples():
    ordered, unordered = hashes()
    again = hashes(rows=ROWS[::-1], prompts=PROMPTS[::-1])
    assert (again[0] == ordered, again[1] == unordered) == (False, True)
    ordered, unordered = hashes(BY_GROUP)
    turned = [[3, -1], [0, 1], [2, -1]]
    again = hashes(turned)
    assert (again[0] == ordered, again[1] == unordered) == (False, True)
    rows, prompts = [ROWS[i] for i in (3, 0, 1, 2)], [PROMPTS[i] for i in (3, 0, 1, 2)]
    assert hashes([[0, -1], [1, 2], [3, -1]], rows, prompts)[1] == unordered


def test_the_same_rows_under_another_unit_are_another_data_set():
    found = [hashes(members) for members in (BY_ROW, BY_GROUP, [[0], [1], [2], [3]])]
    assert len({a for a, _ in found}) == len({b for _, b in found}) == 3
