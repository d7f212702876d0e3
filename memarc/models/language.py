"""Builds a language model from a decoder and a tuning method: losses, states, next-token logits.

Axes: B batch, T tokens, R sequences of an example, D width, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from memarc.models import build
from memarc.models.config import BackboneConfig
from memarc.models.layers import apply, norm
from memarc.ops.precision import wide
from memarc.ops.token_loss import token_loss
from memarc.typing import Array, Batch, LossFn, Params, Precompute, PyTree


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
    """How losses are computed.

    Attributes:
      chunk: Tokens of a row whose logits are in memory at a time; memory and speed only.
      smoothing: Label smoothing of the training loss, in [0, 1).
    """

    chunk: int
    smoothing: float

    def __post_init__(self):
        """Checks both."""
        if self.chunk < 1:
            raise ValueError(f"head.chunk is {self.chunk}; give at least 1 token.")
        if not 0.0 <= self.smoothing < 1.0:
            raise ValueError(f"head.smoothing is {self.smoothing}; give a number in [0, 1).")


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A language model as pure functions (contracts: `memarc.typing`).

    Batches hold ``input_ids``, ``attention_mask`` and ``is_target``, int32[B, T], or [B, R, T]
    where an example is several sequences; targets are predicted from the tokens before them.

    Attributes:
      init: ``(key, backbone_params) -> (trainable, frozen)``; consumes the given parameters.
      precompute: The part of the forward pass that no gradient crosses.
      loss: ``(trainable, frozen, precomputed batch) -> float32[B]``, nats a target token: a mean
        over a sequence's targets, and over the sequences that have any.
      surprise: ``(trainable, frozen, batch) -> (float32[B], int32[B])``: summed nats of all target
        tokens without smoothing, and how many there are; the batch is not precomputed.
      extend: ``(trainable, frozen, tokens int32[B, T], start int32[B], cache) -> (states [B, T, D],
        cache)``, as of `Tuning`.
      logits: ``(trainable, frozen, states [B, D]) -> float32[B, V]`` of the next token.
      empty_cache: ``(rows, slots) -> cache``.
      check_start: ``(trainable, frozen)``: raises ValueError if the network cannot work on random
        tokens, which are public.
      needs_coins: As of `Tuning`.
    """

    init: Callable[[Array, Params], tuple[Params, Params]]
    precompute: Precompute
    loss: LossFn
    surprise: Callable[[Params, Params, Batch], tuple[Array, Array]]
    extend: Callable[[Params, Params, Array, Array, PyTree], tuple[Array, PyTree]]
    logits: Callable[[Params, Params, Array], Array]
    empty_cache: Callable[[int, int], PyTree]
    check_start: Callable[[Params, Params], None]
    needs_coins: bool


def build_language_model(
    method: str, options: Mapping[str, Any], config: BackboneConfig, language: LanguageConfig
) -> LanguageModel:
    """Builds the language model of a tuning method.

    Args:
      method: A name of `build.METHODS`.
      options: Fields of the method's options dataclass; those left out keep its defaults.
      config: Sizes of the backbone.
      language: How losses are computed.

    Raises:
      ValueError: For an encoder, or an unknown method or option, naming the choices.
    """
    if not config.parts.is_decoder:
        raise ValueError(f"A {config.kind} backbone is an encoder; generation needs a decoder.")
    tuning = build.make_tuning(method, options, config)

    def total(trainable, frozen, batch, weights, smoothing):
        """Summed losses of targets times weights [B, .., T - 1], [B]."""
        params = tuning.parameters(trainable, frozen)
        states = _normed(config, params, tuning.states(trainable, frozen, batch))
        targets = batch["input_ids"][..., 1:]
        return token_loss(
            output_table(params),
            states[..., :-1, :],
            targets,
            weights,
            chunk=language.chunk,
            smoothing=smoothing,
        )

    def loss(trainable, frozen, batch):
        weights = mean_weights(batch["is_target"][..., 1:])
        return total(trainable, frozen, batch, weights, language.smoothing)

    def surprise(trainable, frozen, batch):
        counted = batch["is_target"][..., 1:]
        prepared = tuning.precompute(frozen, batch)
        weights = counted.astype(jnp.result_type(float))
        found = total(trainable, frozen, prepared, weights, 0.0)
        return found, counted.reshape(len(counted), -1).sum(1)

    def logits(trainable, frozen, states):
        params = tuning.parameters(trainable, frozen)
        states = _normed(config, params, states)
        table = output_table(params).astype(states.dtype)
        return jnp.einsum("bd,vd->bv", states, table, preferred_element_type=wide(states.dtype))

    def check(trainable, frozen):
        build.check_start(tuning, config, trainable, frozen)

    return LanguageModel(
        init=tuning.init,
        precompute=tuning.precompute,
        loss=loss,
        surprise=surprise,
        extend=tuning.extend,
        logits=logits,
        empty_cache=tuning.empty_cache,
        check_start=check,
        needs_coins=tuning.needs_coins,
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


def output_table(params: Params) -> Array:
    """The table [V, D] whose rows tokens' logits are read off: the word table if tied."""
    return params["final"].get("table", params["embeddings"]["word"])


def _normed(config, params, states):
    return apply(norm(config), params["final"]["norm"], states)
