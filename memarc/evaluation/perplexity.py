"""Perplexity of a language model on every target token of a data set.

Axes: N examples, P examples of a batch.
"""

import math
from collections.abc import Callable

import numpy as np

from memarc.data.dataset import Dataset, padded_chunks
from memarc.typing import Array, Batch, Params


def perplexity(
    surprise: Callable[[Params, Params, Batch], tuple[Array, Array]],
    trainable: Params,
    frozen: Params,
    dataset: Dataset,
    *,
    buckets: tuple[int, ...],
    rows: int,
) -> tuple[float, float]:
    """The exponential of the mean loss of a target token, over all of them alike.

    It is by token, so models with different vocabularies cannot be compared by it.

    Args:
      surprise: ``(trainable, frozen, batch) -> (nats [P], tokens [P])``, compiled.
      trainable: Tuned parameters.
      frozen: The others.
      dataset: N examples.
      buckets: Increasing lengths that examples are padded to.
      rows: P.

    Returns:
      The perplexity, at least 1, and infinite if the mean loss is not finite, or beyond what floats
      hold; and the share of examples whose loss is not finite.

    Raises:
      ValueError: If no example has a target token.
    """
    nats, tokens, undefined = 0.0, 0, 0
    for _, batch, is_padding in padded_chunks(np.arange(len(dataset)), dataset, buckets, rows):
        found, counted = surprise(trainable, frozen, batch)
        losses = np.asarray(found, np.float64)[~is_padding]
        nats += float(losses.sum())
        undefined += int((~np.isfinite(losses)).sum())
        tokens += int(np.asarray(counted)[~is_padding].sum())
    if not tokens:
        raise ValueError("No example has a target token; raise data.max_length.")
    mean = nats / tokens
    return math.exp(mean) if mean < 700.0 else math.inf, undefined / len(dataset)
