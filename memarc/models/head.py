"""The classification head: pools the states, then one linear map.

Axes: B batch, T tokens, D width, C classes, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp

from memarc.batches import ATTENTION_MASK
from memarc.ops.linear import linear
from memarc.ops.precision import wide
from memarc.typing import Array, Batch, Params

POOLINGS = ("first", "mean", "last")


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """How states become logits.

    Attributes:
      pooling: "first" takes the first token, "last" the last real one, whatever side is filled up,
        "mean" the mean of real tokens.
      classes: C.
      words: Ids of the words that stand for the labels (Schick and Schuetze 2021,
        arXiv:2001.07676): the head starts as their rows of a decoder's output table, so that
        labels are as likely as the pre-trained model finds their words. () starts at random.
    """

    pooling: str = "first"
    classes: int = 2
    words: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Checks the pooling and the number of classes."""
        if self.pooling not in POOLINGS:
            raise ValueError(f"head.pooling is {self.pooling!r}; choose one of {POOLINGS}.")
        if self.classes < 2:
            raise ValueError(f"A classification head needs 2 classes or more, not {self.classes}.")
        if self.words and len(self.words) != self.classes:
            raise ValueError(
                f"{len(self.words)} words stand for {self.classes} labels; give one each."
            )
        if self.words and self.pooling != "last":
            raise ValueError(f"head.pooling is {self.pooling!r}; words follow the 'last' token.")


def init(config: HeadConfig, width: int, key: Array) -> Params:
    """Draws the linear map; small, so that training starts near even odds."""
    kernel = 0.02 * jax.random.normal(key, (width, config.classes))
    return {"kernel": kernel, "bias": jnp.zeros((config.classes,))}


def of_words(config: HeadConfig, table: Array) -> Params:
    """The map whose logits are those of words in a decoder's output table [V, D]."""
    rows = jnp.asarray(table)[jnp.asarray(config.words)]
    return {"kernel": rows.T.astype(wide(rows.dtype)), "bias": jnp.zeros((config.classes,))}


def logits(config: HeadConfig, params: Params, states: Array, batch: Batch) -> Array:
    """Maps states [B, T, D] to logits float32[B, C]."""
    states = states.astype(params["kernel"].dtype)
    return linear(_pool(config, states, batch[ATTENTION_MASK]), params["kernel"], params["bias"])


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Per-example loss in nats, [B], of logits [B, C] against labels int32[B]."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]


def _pool(config: HeadConfig, states: Array, attention_mask: Array) -> Array:
    """[B, T, D] -> [B, D]; an all-padding row pools to zero rather than NaN."""
    if config.pooling == "first":
        return states[:, 0]
    if config.pooling == "last":
        tokens = attention_mask.shape[1]
        last = tokens - 1 - jnp.argmax(attention_mask[:, ::-1], axis=1)
        return jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0]
    weights = attention_mask.astype(states.dtype)
    total = jnp.einsum("btd,bt->bd", states, weights)
    return total / jnp.maximum(weights.sum(1), 1.0)[:, None]
