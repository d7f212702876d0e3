"""What decoding is given and what it gives: a model with a cache, options, results.

Axes: B rows, R cache rows (B, or B times beams), P prompt slots, n new tokens, M most new tokens,
D width, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from memarc.typing import Array, PyTree

METHODS = ("greedy", "beam", "nucleus")

# Option -> (the one method that reads it, its value with the others).
_READ_BY = {
    "beams": ("beam", 1),
    "length_penalty": ("beam", 0.0),
    "top_p": ("nucleus", 1.0),
    "temperature": ("nucleus", 1.0),
}


class Decoder(NamedTuple):
    """A causal model that remembers what it has read.

    Attributes:
      extend: ``(tokens int32[R, n], start int32[R], cache) -> (states [R, n, D], cache)``. The new
        tokens of row r stand at positions, and in slots, start[r] to start[r] + n - 1. Slots above
        a query's own are never read, so what they hold is harmless.
      logits: ``states [R, D] -> float32[R, V]`` (float64 in tests).
      empty_cache: ``(rows, slots) -> cache``; every leaf leads with (layers, rows).
    """

    extend: Callable[[Array, Array, PyTree], tuple[Array, PyTree]]
    logits: Callable[[Array], Array]
    empty_cache: Callable[[int, int], PyTree]


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How tokens are chosen.

    Attributes:
      method: "greedy", "beam" or "nucleus".
      max_tokens: M, the most new tokens of a row, the end token among them.
      beams: Live beams of a row; 1 unless the method is "beam".
      length_penalty: alpha; beams are compared by log probability / length**alpha, where the length
        counts the end token. Above 0 favours long rows, below 0 short ones; 0 unless "beam".
      no_repeat_ngram: n; no n new tokens in a row may occur twice among a row's new tokens. 0
        allows all.
      top_p: Mass in (0, 1] of the nucleus that is sampled from; 1 unless "nucleus".
      temperature: A number above 0 that divides logits before the nucleus is taken; 1 unless
        "nucleus".
      seed: The seed of the samples.
    """

    method: str = "greedy"
    max_tokens: int = 64
    beams: int = 1
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0
    top_p: float = 1.0
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks every field, and that none is set that the method would not read."""
        if self.method not in METHODS:
            raise ValueError(f"Unknown method {self.method!r}; choose one of {METHODS}.")
        for name, least in (("max_tokens", 1), ("beams", 1), ("no_repeat_ngram", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least {least}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; give a whole number from 0 up to below 2^32.")
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty is {self.length_penalty}; give a finite number.")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p is {self.top_p}; give a number above 0, at most 1.")
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; give a finite number above 0.")
        for name, (method, value) in _READ_BY.items():
            if self.method != method and getattr(self, name) != value:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, which only method {method!r} reads; give "
                    f"{value} with method {self.method!r}."
                )


class Decoded(NamedTuple):
    """New tokens of B rows.

    Attributes:
      tokens: The new tokens, int32[B, M]; from its end on, a row holds the end token.
      lengths: The number of new tokens before the end token, int32[B].
      is_finished: Whether the row has ended, bool[B]; where max_tokens cut it, its length is M.
      log_probability: The log probability of the new tokens, the end token among them, float[B] in
        nats, under the model itself: neither temperature, nucleus nor forbidden repeats change it.
    """

    tokens: Array
    lengths: Array
    is_finished: Array
    log_probability: Array


def prefill(
    decoder: Decoder, prompts: Array, prompt_lengths: Array, slots: int
) -> tuple[Array, PyTree]:
    """Reads the prompts at once.

    Args:
      decoder: The model.
      prompts: int32[B, P], padded on the right.
      prompt_lengths: int32[B], each 1 to P.
      slots: The number of the cache's slots.

    Returns:
      The logits of each row's first new token, [B, V], and the cache.
    """
    rows = prompts.shape[0]
    cache = decoder.empty_cache(rows, slots)
    states, cache = decoder.extend(prompts, jnp.zeros(rows, jnp.int32), cache)  # [B, P, D]
    last = jnp.take_along_axis(states, (prompt_lengths - 1)[:, None, None], axis=1)  # [B, 1, D]
    return decoder.logits(last[:, 0]), cache


def log_probabilities(config: DecodingConfig, step: Array, tokens: Array, logits: Array) -> Array:
    """Scores every continuation by one token; those that would repeat an n-gram get -infinity.

    The others are not scaled up. The end token repeats nothing, so one is always left.

    Args:
      config: The options, of which ``no_repeat_ngram`` is read.
      step: The number of new tokens so far, int32[].
      tokens: The new tokens, int32[R, M], of which the first ``step`` count.
      logits: The logits of the next token, float[R, V].

    Returns:
      The log probabilities, float[R, V], in the logits' dtype.
    """
    scores = jax.nn.log_softmax(logits)
    size, most = config.no_repeat_ngram, tokens.shape[1]
    if size == 0 or size >= most:  # M tokens hold no two n-grams.
        return scores
    windows = most - size + 1
    newest = jax.lax.dynamic_slice_in_dim(tokens, step - (size - 1), size - 1, axis=1)  # [R, n-1]
    # A window within the tokens so far whose first n - 1 are the newest n - 1.
    is_past = jnp.arange(windows, dtype=jnp.int32) <= step - size
    repeats = jnp.broadcast_to(is_past, (len(tokens), windows))
    for place in range(size - 1):
        repeats &= tokens[:, place : place + windows] == newest[:, place, None]  # [R, windows]
    rows = jnp.arange(len(tokens))[:, None]
    forbidden = jnp.zeros(scores.shape, bool).at[rows, tokens[:, size - 1 :]].max(repeats)
    return jnp.where(forbidden, -jnp.inf, scores)
