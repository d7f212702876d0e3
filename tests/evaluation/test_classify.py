"""Every example is predicted once, in the dataset's order, whatever the batches are."""

import itertools
import math
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
BAD_ROW = 4


def dataset(lengths=LENGTHS):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    tokens = {"input_ids": ids, "token_type_ids": np.zeros_like(ids)}
    labels = np.zeros(len(lengths), np.int32)
    return Dataset(Encoded(tokens, offsets, 0), labels, None, pad_id=0, max_length=5)


def totals():
    """The sum of the ids of each row, which differ."""
    ends = np.cumsum(LENGTHS).tolist()
    return [sum(range(a + 1, b + 1)) for a, b in itertools.pairwise([0, *ends])]


def stub(bad_total=-1):
    """Prefers the class (sum of a row's ids) mod 3 by two nats, and fails at ``bad_total``."""

    def logits(trainable, frozen, batch):
        scores = jax.nn.one_hot(batch["total"] % CLASSES, CLASSES) * trainable
        is_bad = (batch["total"] == bad_total)[:, None] & (jnp.arange(CLASSES) == 1)[None]
        return jnp.where(is_bad, jnp.nan, scores)

    def precompute(frozen, batch):
        return {**batch, "total": (batch["input_ids"] * batch["attention_mask"]).sum(1) + frozen}

    return types.SimpleNamespace(logits=logits, precompute=precompute)


def predict(model, buckets, rows, given=None):
    probabilities = classify.make_probabilities(model, jax.jit)
    two, zero = jnp.full((), 2.0), jnp.zeros((), jnp.int32)
    given = dataset() if given is None else given
    return classify.predict_all(probabilities, two, zero, given, buckets=buckets, rows=rows)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("buckets", [(5,), (2, 5), (1, 3, 4, 5)])
def test_probabilities_are_in_the_order_of_the_dataset(rows, buckets):
    found = predict(stub(), buckets, rows)
    assert found.shape == (len(LENGTHS), CLASSES) and found.dtype == np.float32
    assert len(set(totals())) == len(LENGTHS) and {t % CLASSES for t in totals()} == {0, 1, 2}
    whole = math.exp(2.0) + CLASSES - 1.0
    expected = [
        [math.exp(2.0 * (total % CLASSES == place)) / whole for place in range(CLASSES)]
        for total in totals()
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_example_without_a_finite_answer_stays_visible():
    good, found = predict(stub(), (2, 5), 3), predict(stub(totals()[BAD_ROW]), (2, 5), 3)
    assert np.isnan(found).all(1).tolist() == [i == BAD_ROW for i in range(len(LENGTHS))]
    others = [i for i in range(len(LENGTHS)) if i != BAD_ROW]
    assert (found[others] == good[others]).all()


def test_a_dataset_without_examples_is_refused():
    with pytest.raises(ValueError, match="The dataset has no example"):
        predict(stub(), (5,), 3, dataset(()))
