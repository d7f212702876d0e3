"""Cross-entropy of next tokens, in chunks: the logits of all tokens are never in memory at once.

Going back, each chunk's logits are computed again. The output table may be tapped
(`memarc.ops.taps`); its ghost norm goes over the vocabulary in chunks instead.

Axes: B batch, N tokens (all axes between batch and width), D width, V vocabulary, C tokens or
vocabulary entries of a chunk.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp

from memarc.ops.linear import einsum, flat, lengths, product, sum_of_products
from memarc.ops.precision import wide, wide_einsum
from memarc.ops.taps import Inputs, Op, Shape, Tapped, use
from memarc.typing import Array


def token_loss(
    table: Array | Tapped,
    states: Array,
    targets: Array,
    weights: Array,
    *,
    chunk: int,
    smoothing: float,
    cap: float = 0.0,
) -> Array:
    """Weighted sum of the cross-entropy of every token of a row.

    Args:
      table: [V, D]; logits are its products with states, in the dtype of ``states``.
      states: [B, .., D].
      targets: int32[B, ..].
      weights: float32[B, ..]; tokens of weight 0 do not count.
      chunk: Tokens of each row whose logits are in memory at a time, [B, C, V].
      smoothing: s of label smoothing: the target distribution is 1 - s on the target and s spread
        evenly over the vocabulary.
      cap: Caps logits as `token_logits` does.

    Returns:
      [B], nats, float32 or wider.
    """
    return use(_op(How(chunk, smoothing, cap)), table, states, targets, weights)


def token_logits(table: Array, states: Array, cap: float) -> Array:
    """Logits [.., V] of states [.., D], float32 or wider.

    Args:
      table: [V, D].
      states: [.., D].
      cap: c > 0 turns logits x into c tanh(x / c); 0 leaves them.
    """
    logits = wide_einsum("...d,vd->...v", states, table.astype(states.dtype))
    return cap * jnp.tanh(logits / cap) if cap else logits


@dataclasses.dataclass(frozen=True)
class How:
    """What `token_loss` is told, besides arrays."""

    chunk: int
    smoothing: float
    cap: float


def _op(how: How) -> Op:
    return Op(
        name="token loss",
        rank=2,
        apply=partial(_summed, how),
        instantiate=partial(_instantiate, how),
        ghost=partial(_ghost, how),
        prefers_ghost=_prefers_ghost,
        weighted_sum=partial(_weighted_sum, how),
        spread=partial(_spread, how),
    )


def _summed(how: How, table: Array, states: Array, targets: Array, weights: Array) -> Array:
    def add(total: Array, some: tuple[Array, Array, Array]) -> tuple[Array, None]:
        states, targets, weights = some
        logits = token_logits(table, states, how.cap)  # [B, C, V]
        target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        expected = (1.0 - how.smoothing) * target
        if how.smoothing:
            expected = expected + how.smoothing * logits.mean(-1)
        losses = jax.nn.logsumexp(logits, axis=-1) - expected
        return total + jnp.sum(weights.astype(losses.dtype) * losses, axis=1), None

    zeros = jnp.zeros(states.shape[:1], wide(states.dtype))
    chunks = _chunks(how.chunk, states, targets, weights)
    return jax.lax.scan(jax.checkpoint(add, prevent_cse=False), zeros, chunks)[0]


def _chunks(
    chunk: int, states: Array, targets: Array, weights: Array
) -> tuple[Array, Array, Array]:
    """[B, .., D] and [B, ..] twice -> [N / C, B, C, D] and [N / C, B, C], filled up with zeros."""
    states, (targets, weights) = flat(states), _rows(targets, weights)
    size = max(1, min(chunk, states.shape[1]))  # A row of one token predicts none.

    def cut(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % size)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)

    return cut(states), cut(targets), cut(weights)


def _weighted_sum(how: How, table: Array, inputs: Inputs, g: Array, factors: Array) -> Array:
    """Sum over rows of factors times gradients [V, D]; float32 or wider throughout."""
    scale = g.astype(wide(g.dtype)) * factors.astype(wide(g.dtype))
    return _gradient(how, table, inputs, scale, "bcv,bcd->vd")


def _instantiate(how: How, table: Array, inputs: Inputs, g: Array) -> Array:
    """Gradients of all rows [B, V, D]."""
    return _gradient(how, table, inputs, g.astype(wide(g.dtype)), "bcv,bcd->bvd")


def _gradient(how: How, table: Array, inputs: Inputs, scale: Array, contraction: str) -> Array:
    """Contracts logits' gradients, each row's times its scale [B], with states.

    Not left to autodiff, which would round a sum over rows to the dtype of states.
    """

    def add(total: Array, some: tuple[Array, Array, Array]) -> tuple[Array, None]:
        return total + product(contraction, _of_logits(how, table, some, scale), some[0]), None

    shape = table.shape if contraction.endswith(">vd") else (len(scale), *table.shape)
    zeros = jnp.zeros(shape, wide(scale.dtype))
    return jax.lax.scan(add, zeros, _chunks(how.chunk, *inputs))[0]


def _spread(how: How, table: Array, inputs: Inputs, g: Array) -> Array:
    """Sum over a row's tokens of the lengths of its logits' gradient and state, multiplied [B]."""
    scale = g.astype(wide(g.dtype))

    def add(total: Array, some: tuple[Array, Array, Array]) -> tuple[Array, None]:
        gradient = _of_logits(how, table, some, scale)
        return total + jnp.sum(lengths(gradient) * lengths(some[0]), 1), None

    return jax.lax.scan(add, jnp.zeros_like(scale), _chunks(how.chunk, *inputs))[0]


def _of_logits(how: How, table: Array, some: tuple[Array, Array, Array], scale: Array) -> Array:
    """Gradients [B, C, V] of a chunk's logits, each row's times its scale [B]."""
    states, targets, weights = some
    by_token = scale[:, None] * weights.astype(scale.dtype)
    logits = token_logits(table, states, how.cap)
    return _logits_gradient(logits, targets, by_token, how.smoothing) * _slope(logits, how.cap)


def _logits_gradient(logits: Array, targets: Array, scale: Array, smoothing: float) -> Array:
    """[B, C, V]: scale [B, C] times softmax less the target distribution."""
    ids = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    is_target = (ids == targets[..., None]).astype(logits.dtype)
    wanted = (1.0 - smoothing) * is_target + smoothing / logits.shape[-1]
    return scale[..., None] * (jax.nn.softmax(logits) - wanted)


def _slope(logits: Array, cap: float) -> Array | float:
    """The derivative of capped logits by those under the cap."""
    return 1.0 - (logits / cap) ** 2 if cap else 1.0


def _ghost(how: How, table: Array, inputs: Inputs, g: Array) -> Array:
    """Squared norms [B] of the table's gradients: Gram matrices of states and of logits' gradients.

    The second is summed over parts of the vocabulary.
    """
    (states, targets, weights), vocabulary = inputs, table.shape[0]
    states, (targets, weights) = flat(states), _rows(targets, weights)
    scale = g[:, None] * weights.astype(g.dtype)  # [B, N]
    size = min(vocabulary, -(-how.chunk * vocabulary // max(1, states.shape[1])))
    starts = jnp.arange(0, vocabulary, size, dtype=jnp.int32)

    def some_logits(start: Array) -> tuple[Array, Array, Array]:
        """Logits [B, N, C] of entries from ``start`` on, -inf behind the last; ids; which exist."""
        ids = start + jnp.arange(size, dtype=jnp.int32)
        logits = token_logits(table[jnp.minimum(ids, vocabulary - 1)], states, how.cap)
        is_there = jnp.broadcast_to(ids < vocabulary, logits.shape)
        return jnp.where(is_there, logits, -jnp.inf), ids, is_there

    def add_mass(total: Array, start: Array) -> tuple[Array, None]:
        logits, _, _ = some_logits(start)
        return jnp.logaddexp(total, jax.nn.logsumexp(logits, axis=-1)), None

    def add_gram(total: Array, start: Array) -> tuple[Array, None]:
        logits, ids, is_there = some_logits(start)
        is_target = targets[..., None] == jnp.broadcast_to(ids, (1, 1, size))
        wanted = (1.0 - how.smoothing) * is_target.astype(mass.dtype) + how.smoothing / vocabulary
        gradient = scale[..., None] * (jnp.exp(logits - mass[..., None]) - wanted)
        gradient = gradient * _slope(logits, how.cap)
        gradient = jnp.where(is_there, gradient, jnp.zeros_like(gradient))
        return total + einsum("bnv,bmv->bnm", gradient, gradient), None

    empty = jnp.full(targets.shape, -jnp.inf, wide(states.dtype))
    mass, _ = jax.lax.scan(add_mass, empty, starts)  # log of the sum of exponentials, [B, N]
    square = jnp.zeros((*targets.shape, targets.shape[1]), mass.dtype)
    gram, _ = jax.lax.scan(add_gram, square, starts)
    return sum_of_products(einsum("bnd,bmd->bnm", states, states), gram)


def _prefers_ghost(table: Shape, inputs: tuple[Shape, ...]) -> bool:
    (states, *_), (entries, width) = inputs, table
    tokens = math.prod(states[1:-1])
    return tokens * (entries + width) <= entries * width


def _rows(*arrays: Array) -> list[Array]:
    """[B, ..] -> [B, N] each."""
    return [x.reshape(x.shape[0], -1) for x in arrays]
