"""Every row is predicted once, whatever the batch size and the buckets."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.data.dataset import Dataset
from memarc.data.tokenize import Encoded
from memarc.evaluation import classify

LENGTHS = (2, 5, 1, 3, 5, 2, 4)
CLASSES = 3


def dataset():
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    ids = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    encoded = Encoded(ids, np.zeros_like(ids), offsets, truncated_rows=0)
    # The class that the stub below predicts for each row, wrong in rows 1 and 6.
    sums = np.asarray([ids[a:b].sum() for a, b in itertools.pairwise(offsets)])
    labels = (sums % CLASSES).astype(np.int32)
    labels[[1, 6]] = (labels[[1, 6]] + 1) % CLASSES
    return Dataset(encoded, labels, pad_id=0, max_length=5)


def stub():
    """Predicts the sum of a row's ids modulo the classes, through ``precompute``."""

    def logits(trainable, frozen, batch):
        return jax.nn.one_hot(batch["total"] % CLASSES, CLASSES) * trainable

    def precompute(frozen, batch):
        return {**batch, "total": (batch["input_ids"] * batch["attention_mask"]).sum(1) + frozen}

    return types.SimpleNamespace(precompute=precompute, logits=logits)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("buckets", [(5,), (2, 5), (1, 3, 4, 5)])
def test_all_rows_count_once(rows, buckets):
    predict = classify.make_predict(stub(), jax.jit)
    one, zero = jnp.ones(()), jnp.zeros((), jnp.int32)
    labels, predicted = classify.predict_all(
        predict, one, zero, dataset(), buckets=buckets, rows=rows
    )
    assert len(labels) == len(predicted) == len(LENGTHS)
    assert sorted(labels) == sorted(dataset().labels)
    assert (labels == predicted).sum() == 5
