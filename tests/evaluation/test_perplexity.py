"""Perplexity is over all target tokens alike, whatever the batches are."""

import math

import numpy as np
import pytest

from memarc.data.dataset import Dataset
from memarc.data.tokenize import Encoded
from memarc.evaluation.perplexity import perplexity, surprises

SIZES, PROMPTS = (3, 5, 2, 4), (1, 2, 1, 1)  # Targets: 2, 3, 1, 3.


def dataset(prompts=PROMPTS):
    marks = [
        step >= prompt for size, prompt in zip(SIZES, prompts, strict=True) for step in range(size)
    ]
    ids = np.arange(sum(SIZES), dtype=np.int32)
    tokens = {"input_ids": ids, "is_target": np.asarray(marks, np.int32)}
    encoded = Encoded(tokens, np.concatenate([[0], np.cumsum(SIZES)]), truncated_rows=0)
    return Dataset(encoded, None, None, pad_id=0, max_length=5)


def surprise(trainable, frozen, batch):
    """Each target token costs its id over ten nats; rows that fill up cost what must not count."""
    costs = (batch["input_ids"] * batch["is_target"]).sum(1) / 10
    return np.where(batch["attention_mask"].any(1), costs, 1e6), batch["is_target"].sum(1)


@pytest.mark.parametrize("rows", [1, 3, 9])
@pytest.mark.parametrize("buckets", [(5,), (2, 3, 5)])
def test_every_target_token_counts_once(rows, buckets):
    ids = [1, 2, 5, 6, 7, 9, 11, 12, 13]  # Of the targets, by hand.
    found = surprises(surprise, {}, {}, dataset(), buckets=buckets, rows=rows)
    assert perplexity(*found) == pytest.approx(math.exp(sum(ids) / 10 / len(ids)))


def test_a_loss_beyond_floats_is_infinite():
    def hopeless(trainable, frozen, batch):
        nats, tokens = surprise(trainable, frozen, batch)
        return nats + 1e5, tokens

    found = surprises(hopeless, {}, {}, dataset(), buckets=(5,), rows=4)
    assert perplexity(*found) == math.inf and np.isfinite(found[0]).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_examples_without_a_loss_are_counted_and_padding_is_not(rows):
    """The third example, of two tokens, is out of range, and so is all that fills up a batch."""

    def out_of_range(trainable, frozen, batch):
        nats, tokens = surprise(trainable, frozen, batch)
        lost = np.isin(batch["attention_mask"].sum(1), (0, 2))
        return np.where(lost, np.nan, nats), tokens

    nats, tokens = surprises(out_of_range, {}, {}, dataset(), buckets=(5,), rows=rows)
    assert perplexity(nats, tokens) == math.inf
    assert np.isnan(nats).sum() == 1 and len(nats) == 4 and sorted(tokens) == [1, 2, 3, 3]


def test_without_a_target_there_is_no_perplexity():
    with pytest.raises(ValueError, match="No example has a target token"):
        surprises(surprise, {}, {}, dataset(SIZES), buckets=(5,), rows=4)
