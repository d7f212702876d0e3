"""Predicts the classes of a whole dataset in fixed-shape batches; the last one is exact.

Axes: N rows, P rows of a batch, C classes.
"""

from collections.abc import Callable

import numpy as np

from memarc.data.dataset import Dataset, padded_chunks
from memarc.models.classifier import Classifier
from memarc.typing import Array, Batch, Params

Predict = Callable[[Params, Params, Batch], Array]
"""``(trainable, frozen, batch) -> int32[P]``, compiled once per batch shape."""


def make_predict(model: Classifier, compile_rows: Callable[[Predict], Predict]) -> Predict:
    """Builds the function from a batch to its most likely classes; ``jax.jit`` compiles it."""

    def predict(trainable, frozen, batch):
        return model.logits(trainable, frozen, model.precompute(frozen, batch)).argmax(-1)

    return compile_rows(predict)


def predict_all(
    predict: Predict,
    trainable: Params,
    frozen: Params,
    dataset: Dataset,
    *,
    buckets: tuple[int, ...],
    rows: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts every row of a dataset once.

    Args:
      predict: From ``make_predict``.
      trainable: Tuned parameters.
      frozen: The others.
      dataset: N rows.
      buckets: Increasing lengths that rows are padded to.
      rows: P.

    Returns:
      Labels and predictions, int[N] each, grouped by length rather than in the dataset's order.
    """
    labels, predicted = [], []
    for _, batch, is_padding in padded_chunks(np.arange(len(dataset)), dataset, buckets, rows):
        kept = ~is_padding
        labels.append(batch["labels"][kept])
        predicted.append(np.asarray(predict(trainable, frozen, batch))[kept])
    return np.concatenate(labels), np.concatenate(predicted)
