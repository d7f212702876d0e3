"""A language model: a decoder and a tuning method. Losses of tokens, states, next-token logits.

Axes: B batch, T tokens, S slots of a cache, R sequences of an example, D width, V vocabulary.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from memarc import batches
from memarc.models import backbone
from memarc.models.model import Model
from memarc.ops.token_loss import token_loss
from memarc.typing import Array, Batch, Params, PyTree


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
    """How losses are computed.

    Attributes:
      chunk: Tokens of a row whose logits are in memory at a time; memory and speed only.
      smoothing: Label smoothing of the training loss, in [0, 1).
    """

    chunk: int = 32
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Checks both."""
        if self.chunk < 1:
            raise ValueError(f"head.chunk is {self.chunk}; give at least 1 token.")
        if not 0.0 <= self.smoothing < 1.0:
            raise ValueError(f"head.smoothing is {self.smoothing}; give a number in [0, 1).")


@dataclasses.dataclass(frozen=True)
class LanguageModel(Model):
    """Writes texts: predicts each target of a sequence from the tokens before it.

    Batches are of `memarc.batches.GENERATION`: int32[B, T], or [B, R, T] where an example is
    several sequences. The head is the decoder's own, its last norm and its output table.

    Attributes:
      head: How losses are computed.
    """

    head: LanguageConfig

    kind: ClassVar[str] = batches.GENERATION

    def loss(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes the loss of each example, nats a target token, float32[B].

        It is a mean over a sequence's targets, and then over the sequences that have any.
        """
        weights = mean_weights(batch[batches.IS_TARGET][..., 1:])
        return self._total(trainable, frozen, batch, weights, self.head.smoothing)

    def surprise(self, trainable: Params, frozen: Params, batch: Batch) -> tuple[Array, Array]:
        """Adds up what all target tokens of an example say, without smoothing.

        Args:
          trainable: The parameters that `init` gives first.
          frozen: The parameters that `init` gives second.
          batch: Not precomputed.

        Returns:
          Summed nats, float32[B], and how many targets there are, int32[B].
        """
        counted = batch[batches.IS_TARGET][..., 1:]
        prepared = self.precompute(frozen, batch)
        weights = counted.astype(jnp.result_type(float))
        found = self._total(trainable, frozen, prepared, weights, 0.0)
        return found, counted.reshape(len(counted), -1).sum(1)

    def extend(
        self, trainable: Params, frozen: Params, tokens: Array, start: Array, cache: PyTree
    ) -> tuple[Array, PyTree]:
        """Computes the states of new tokens over a cache (`Method.extend`)."""
        return self.method.extend(trainable["tuning"], frozen, tokens, start, cache)

    def logits(self, trainable: Params, frozen: Params, states: Array) -> Array:
        """Computes logits of the next token, float32[B, V], from states [B, D] of `extend`."""
        params = self.method.parameters(trainable["tuning"], frozen)
        states = backbone.norm_last(self.method.config, params, states)
        return backbone.output_logits(self.method.config, params, states)

    def empty_cache(self, rows: int, slots: int) -> PyTree:
        """Makes a cache of B rows and S slots (`Method.empty_cache`)."""
        return self.method.empty_cache(rows, slots)

    def _total(
        self, trainable: Params, frozen: Params, batch: Batch, weights: Array, smoothing: float
    ) -> Array:
        """Summed losses of targets times weights [B, .., T - 1], [B]."""
        params = self.method.parameters(trainable["tuning"], frozen)
        states = self.method.states(trainable["tuning"], frozen, batch)
        return token_loss(
            backbone.output_table(params),
            backbone.norm_last(self.method.config, params, states)[..., :-1, :],
            batch[batches.INPUT_IDS][..., 1:],
            weights,
            chunk=self.head.chunk,
            smoothing=smoothing,
            cap=self.method.config.logit_cap,
        )


def mean_weights(is_target: Array) -> Array:
    """Weights of a mean over each sequence's targets, then over the sequences that have any.

    Args:
      is_target: int32[B, T] or [B, R, T].

    Returns:
      Floats of the same shape; each example's sum to 1, or to 0 where it has no target.
    """
    marks = is_target.astype(jnp.result_type(float))
    counts = marks.sum(-1, keepdims=True)
    weights = marks / jnp.maximum(counts, 1.0)
    if marks.ndim == 2:
        return weights
    sequences = (counts > 0).astype(marks.dtype).sum(-2, keepdims=True)
    return weights / jnp.maximum(sequences, 1.0)
