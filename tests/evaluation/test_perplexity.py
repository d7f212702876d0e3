"""Perplexity is over all target tokens alike, whatever the batches are."""

import math

import numpy as np
import pytest

from memarc.data.pair_dataset import PairDataset
from memarc.data.prompts import EncodedPairs
from memarc.evaluation.perplexity import perplexity

SIZES, PROMPTS = (3, 5, 2, 4), (1, 2, 1, 1)  # Targets: 2, 3, 1, 3.


def dataset(prompts=PROMPTS):
    return PairDataset(
        EncodedPairs(
            input_ids=np.arange(sum(SIZES), dtype=np.int32),
            offsets=np.concatenate([[0], np.cumsum(SIZES)]),
            prompt_lengths=np.asarray(prompts, np.int32),
            truncated_rows=0,
        ),
        np.arange(len(SIZES)),
        pad_id=0,
        max_length=5,
    )


def surprise(trainable, frozen, batch):
    """Each target token costs its id over ten nats; rows that fill up cost what must not count."""
    costs = (batch["input_ids"] * batch["is_target"]).sum(1) / 10
    return np.where(batch["attention_mask"].any(1), costs, 1e6), batch["is_target"].sum(1)


@pytest.mark.parametrize("rows", [1, 3, 9])
@pytest.mark.parametrize("buckets", [(5,), (2, 3, 5)])
def test_every_target_token_counts_once(rows, buckets):
    ids = [1, 2, 5, 6, 7, 9, 11, 12, 13]  # Of the targets, by hand.
    got = perplexity(surprise, {}, {}, dataset(), buckets=buckets, rows=rows)
    assert got == pytest.approx(math.exp(sum(ids) / 10 / len(ids)))


def test_a_loss_beyond_floats_is_infinite():
    def hopeless(trainable, frozen, batch):
        nats, tokens = surprise(trainable, frozen, batch)
        return nats + 1e5, tokens

    assert perplexity(hopeless, {}, {}, dataset(), buckets=(5,), rows=4) == math.inf


def test_without_a_target_there_is_no_perplexity():
    with pytest.raises(ValueError, match="No example has a target token"):
        perplexity(surprise, {}, {}, dataset(SIZES), buckets=(5,), rows=4)
