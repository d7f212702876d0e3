"""The classification head: pools the states, then one linear map.

Axes: B batch, T tokens, D width, C classes.
"""

import dataclasses

import jax
import jax.numpy as jnp

from memarc.batches import ATTENTION_MASK
from memarc.ops.linear import linear
from memarc.typing import Array, Batch, Params

POOLINGS = ("first", "mean")


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """How states become logits.

    Attributes:
      pooling: "first" takes the first token, "mean" the mean of real tokens.
      classes: C.
    """

    pooling: str = "first"
    classes: int = 2

    def __post_init__(self) -> None:
        """Checks the pooling and the number of classes."""
        if self.pooling not in POOLINGS:
            raise ValueError(f"head.pooling is {self.pooling!r}; choose one of {POOLINGS}.")
        if self.classes < 2:
            raise ValueError(f"A classification head needs 2 classes or more, not {self.classes}.")


def init(config: HeadConfig, width: int, key: Array) -> Params:
    """Draws the linear map; small, so that training starts near even odds."""
    kernel = 0.02 * jax.random.normal(key, (width, config.classes))
    return {"kernel": kernel, "bias": jnp.zeros((config.classes,))}


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
    weights = attention_mask.astype(states.dtype)
    total = jnp.einsum("btd,bt->bd", states, weights)
    return total / jnp.maximum(weights.sum(1), 1.0)[:, None]
