"""Beam search: keeps the K likeliest unfinished continuations and the best finished one.

Axes: B rows, K beams, M most new tokens, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memarc.evaluation.decoding import Decoded, Decoder, DecodingConfig, log_probabilities
from memarc.typing import Array, PyTree


class Found(NamedTuple):
    """What a search holds between two steps.

    Attributes:
      tokens: The live beams' tokens, int32[B, K, M], likeliest beam first; places that are not
        written yet hold the end token.
      log_probability: The live beams' log probabilities, float[B, K]; -infinity where there are
        fewer than K.
      best: The best hypothesis of each row that has ended; unfinished where no hypothesis has.
      best_score: The best hypothesis's score, float[B]; -infinity where there is none.
    """

    tokens: Array
    log_probability: Array
    best: Decoded
    best_score: Array


Carry = tuple[Array, Found, PyTree]
"""What a loop carries: the number of new tokens so far, what was found, and the cache."""


def search(
    decoder: Decoder,
    config: DecodingConfig,
    prompt_lengths: Array,
    end_id: int,
    logits: Array,
    cache: PyTree,
) -> Decoded:
    """Searches for each row's end of the highest score, log probability / length**alpha.

    A continuation by the end token is a hypothesis if it is among its row's K likeliest
    continuations by any token; the K likeliest others live on. So one beam without penalty is
    greedy. Only the best hypothesis is returned, hence only that one is kept: a row is done once no
    live beam can beat it, which changes no result. An unfinished beam is returned only for rows
    without a hypothesis.

    Args:
      decoder: The model.
      config: The options K, M and alpha.
      prompt_lengths: The prompts' numbers of tokens, int32[B].
      end_id: The end token.
      logits: The first new token's logits, float[B, V]; V is at least 2.
      cache: The cache after the prompts, with B rows.

    Returns:
      The best hypothesis of each row.
    """
    cache = jax.tree.map(lambda leaf: jnp.repeat(leaf, config.beams, axis=1), cache)
    starts = jnp.repeat(prompt_lengths, config.beams)  # [BK]

    def may_improve(carry: Carry) -> Array:
        step, found, _ = carry
        return (step < config.max_tokens) & ~_is_done(config, step, found).all()

    def lengthen(carry: Carry) -> Carry:
        step, found, cache = carry
        newest = jax.lax.dynamic_index_in_dim(found.tokens, step - 1, axis=2)  # [B, K, 1]
        states, cache = decoder.extend(newest.reshape(-1, 1), starts + (step - 1), cache)
        logits = decoder.logits(states[:, 0])  # [BK, V]
        found, parents = _advance(config, end_id, step, found, logits)
        return step + 1, found, reorder(cache, parents)

    repeated = jnp.repeat(logits, config.beams, axis=0)  # [BK, V]
    # All beams of a row share the prompt's cache, so there is nothing to reorder yet.
    found, _ = _advance(config, end_id, jnp.int32(0), _start(config, end_id, logits), repeated)
    _, found, _ = jax.lax.while_loop(may_improve, lengthen, (jnp.int32(1), found, cache))
    return _result(found)


def reorder(cache: PyTree, parents: Array) -> PyTree:
    """Gives each beam the cache of the beam that it continues.

    Args:
      cache: Leaves [layers, BK, ...].
      parents: The number, in its row, of the beam that each beam continues, int32[B, K].

    Returns:
      The cache with its rows rearranged.
    """
    rows, beams = parents.shape
    flat = (parents + beams * jnp.arange(rows, dtype=jnp.int32)[:, None]).reshape(-1)  # [BK]
    return jax.tree.map(lambda leaf: leaf[:, flat], cache)


def _start(config: DecodingConfig, end_id: int, logits: Array) -> Found:
    """One live beam in each row, without tokens."""
    rows, beams, most = len(logits), config.beams, config.max_tokens
    best = Decoded(
        tokens=jnp.full((rows, most), end_id, jnp.int32),
        lengths=jnp.zeros(rows, jnp.int32),
        is_finished=jnp.zeros(rows, bool),
        log_probability=jnp.full(rows, -jnp.inf, logits.dtype),
    )
    return Found(
        tokens=jnp.full((rows, beams, most), end_id, jnp.int32),
        log_probability=jnp.full((rows, beams), -jnp.inf, logits.dtype).at[:, 0].set(0.0),
        best=best,
        best_score=jnp.full(rows, -jnp.inf, logits.dtype),
    )


def _advance(
    config: DecodingConfig, end_id: int, step: Array, found: Found, logits: Array
) -> tuple[Found, Array]:
    """Continues live beams by their token number ``step``; also gives parents, int32[B, K]."""
    (rows, beams, most), vocabulary = found.tokens.shape, logits.shape[-1]
    scores = log_probabilities(config, step, found.tokens.reshape(-1, most), logits)  # [BK, V]
    totals = found.log_probability[:, :, None] + scores.reshape(rows, beams, vocabulary)
    # Each beam ends in one way, so the best 2K hold at least K that do not end.
    totals, flat = jax.lax.top_k(totals.reshape(rows, -1), 2 * beams)  # [B, 2K]
    parents, chosen = flat // vocabulary, flat % vocabulary
    is_end = chosen == end_id
    ended = jnp.where(is_end, totals, -jnp.inf)[:, :beams]
    found = _keep_best(config, step, found, ended, parents[:, :beams])

    kept, places = jax.lax.top_k(jnp.where(is_end, -jnp.inf, totals), beams)  # [B, K]
    parents = jnp.take_along_axis(parents, places, axis=1)
    chosen = jnp.take_along_axis(chosen, places, axis=1)
    tokens = jnp.take_along_axis(found.tokens, parents[:, :, None], axis=1)  # [B, K, M]
    tokens = tokens.at[:, :, step].set(chosen)
    return found._replace(tokens=tokens, log_probability=kept), parents


def _keep_best(
    config: DecodingConfig, step: Array, found: Found, ended: Array, parents: Array
) -> Found:
    """Replaces each row's best hypothesis where one that ends now beats it.

    Hypotheses are ``ended``, log probabilities [B, K], -infinity where there is none, and
    ``parents`` [B, K]. All end with as many tokens, so the likeliest scores highest.
    """
    place = ended.argmax(axis=1)[:, None]  # [B, 1]
    log_probability = jnp.take_along_axis(ended, place, axis=1)[:, 0]
    parent = jnp.take_along_axis(parents, place, axis=1)[:, :, None]  # [B, 1, 1]
    tokens = jnp.take_along_axis(found.tokens, parent, axis=1)[:, 0]  # [B, M]
    score = log_probability / _penalties(config, found.best_score.dtype)[step]
    is_better = score > found.best_score
    lengths = jnp.broadcast_to(step, is_better.shape)
    best = _where(is_better, Decoded(tokens, lengths, is_better, log_probability), found.best)
    return found._replace(best=best, best_score=jnp.maximum(score, found.best_score))


def _is_done(config: DecodingConfig, step: Array, found: Found) -> Array:
    """bool[B]: no live beam, each of ``step`` tokens, can still beat the best hypothesis.

    A log probability is at most 0 and only falls, and a beam ends with step + 1 to M tokens. So its
    score is at most that of no further loss at the length of the largest divisor: M where alpha is
    above 0, step + 1 where it is below.
    """
    penalties = _penalties(config, found.best_score.dtype)
    largest = jnp.maximum(penalties[step], penalties[-1])
    return found.log_probability[:, 0] / largest <= found.best_score


def _penalties(config: DecodingConfig, dtype: jnp.dtype) -> Array:
    """The divisors length**alpha for lengths 1 to M, float[M]."""
    lengths = np.arange(1, config.max_tokens + 1, dtype=np.float64)
    return jnp.asarray(lengths**config.length_penalty, dtype)


def _result(found: Found) -> Decoded:
    """The best hypothesis, or the likeliest live beam where there is none."""
    lengths = jnp.full_like(found.best.lengths, found.tokens.shape[2])
    is_finished = found.best.is_finished
    cut = Decoded(found.tokens[:, 0], lengths, is_finished, found.log_probability[:, 0])
    return _where(is_finished, found.best, cut)


def _where(condition: Array, first: Decoded, second: Decoded) -> Decoded:
    """Chooses whole rows; the condition is bool[B]."""
    return Decoded(
        jnp.where(condition[:, None], first.tokens, second.tokens),
        *(jnp.where(condition, *pair) for pair in zip(first[1:], second[1:], strict=True)),
    )
