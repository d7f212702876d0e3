"""Predicts class probabilities, or numbers, of a whole dataset in batches of fixed shapes.

Axes: N examples, P examples of a batch, C classes, or the one number of regression.
"""

from collections.abc import Callable

import jax
import numpy as np

from memarc.data.dataset import Dataset, padded_chunks
from memarc.models.classifier import Classifier, Regressor
from memarc.typing import Array, Batch, Params

Probabilities = Callable[[Params, Params, Batch], Array]
"""``(trainable, frozen, batch) -> float32[P, C]``, compiled once per batch shape."""

Compile = Callable[[Probabilities], Probabilities]
"""Compiles such a function, as ``jax.jit`` does."""


def make_probabilities(model: Classifier, compile_rows: Compile) -> Probabilities:
    """Builds the function from a batch to its class probabilities.

    Args:
      model: A classifier.
      compile_rows: Compiles the function, as ``jax.jit`` does.

    Returns:
      The compiled function. An example with a NaN among its logits has NaN probabilities.
    """

    def probabilities(trainable: Params, frozen: Params, batch: Batch) -> Array:
        logits = model.logits(trainable, frozen, model.precompute(frozen, batch))
        return jax.nn.softmax(logits, axis=-1)

    return compile_rows(probabilities)


def make_numbers(model: Regressor, compile_rows: Compile) -> Probabilities:
    """Builds the function from a batch to its numbers, shares of the range, float32[P, 1].

    Args:
      model: A model that gives a number.
      compile_rows: Compiles the function.
    """

    def numbers(trainable: Params, frozen: Params, batch: Batch) -> Array:
        return model.logits(trainable, frozen, model.precompute(frozen, batch))

    return compile_rows(numbers)


def predict_all(
    probabilities: Probabilities,
    trainable: Params,
    frozen: Params,
    dataset: Dataset,
    *,
    buckets: tuple[int, ...],
    rows: int,
) -> np.ndarray:
    """Predicts every example of a dataset once.

    Args:
      probabilities: From ``make_probabilities`` or ``make_numbers``.
      trainable: Tuned parameters.
      frozen: The other parameters.
      dataset: N examples.
      buckets: Increasing lengths that examples are padded to.
      rows: P.

    Returns:
      float32[N, C], probabilities in the dataset's order. An example with a NaN among its logits is
      NaN throughout, and ``argmax`` would call it class 0: look for it first.

    Raises:
      ValueError: If the dataset has no example.
    """
    if not len(dataset):
        raise ValueError("The dataset has no example; give at least one.")
    numbers = np.arange(len(dataset))
    found = []
    for _, batch, is_padding in padded_chunks(numbers, dataset, buckets, rows):
        found.append(np.asarray(probabilities(trainable, frozen, batch))[~is_padding])
    by_length = np.concatenate(found)  # [N, C]; chunks put short buckets first.
    ordered = np.empty_like(by_length)
    ordered[np.argsort(dataset.bucket_of(numbers, buckets), kind="stable")] = by_length
    return ordered
