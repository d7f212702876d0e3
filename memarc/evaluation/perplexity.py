"""Perplexity of a language model on every target token of a data set.

Axes: N examples, P examples of a batch.
"""

import math
from collections.abc import Callable

import numpy as np

from memarc.data.dataset import Dataset, padded_chunks
from memarc.typing import Array, Batch, Params


def surprises(
    surprise: Callable[[Params, Params, Batch], tuple[Array, Array]],
    trainable: Params,
    frozen: Params,
    dataset: Dataset,
    *,
    buckets: tuple[int, ...],
    rows: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What the target tokens of each example say together.

    Args:
      surprise: ``(trainable, frozen, batch) -> (nats [P], tokens [P])``, compiled.
      trainable: Tuned parameters.
      frozen: The others.
      dataset: N examples.
      buckets: Increasing lengths that examples are padded to.
      rows: P.

    Returns:
      Summed nats float64[N], and numbers of target tokens int64[N]; short examples come first.

    Raises:
      ValueError: If no example has a target token.
    """
    nats, tokens = [], []
    for _, batch, is_padding in padded_chunks(np.arange(len(dataset)), dataset, buckets, rows):
        found, counted = surprise(trainable, frozen, batch)
        nats.append(np.asarray(found, np.float64)[~is_padding])
        tokens.append(np.asarray(counted, np.int64)[~is_padding])
    if not np.concatenate(tokens).any():
        raise ValueError("No example has a target token; raise data.max_length.")
    return np.concatenate(nats), np.concatenate(tokens)


def perplexity(nats: np.ndarray, tokens: np.ndarray) -> float:
    """The exponential of the mean loss of a target token, over all of them alike.

    It is by token, so models with different vocabularies cannot be compared by it.

    Args:
      nats: float[N], as of `surprises`.
      tokens: int[N].

    Returns:
      At least 1; infinite if the mean loss is not finite, or beyond what floats hold, and NaN
      without any token.

    >>> perplexity(np.log([4.0, 16.0]), np.array([1, 2]))
    4.0
    """
    if not tokens.any():
        return math.nan
    mean = nats.sum() / tokens.sum()
    return math.exp(mean) if mean < 700.0 else math.inf
