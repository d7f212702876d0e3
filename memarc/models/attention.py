"""Scaled dot-product attention: masked or causal, whole or in blocks, over a cache or not.

Axes: B batch (or several batch axes), T queries, S keys, H heads, G key heads, K width of a head.
"""

from functools import partial

import jax
import jax.numpy as jnp

from memarc.ops.precision import wide
from memarc.typing import Array


def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    last: Array | None = None,
    block: int = 0,
) -> Array:
    """Scaled dot-product attention; scores and softmax are float32, or float64 if the query is.

    (JAX's own function takes the softmax in float32 always, so it is no oracle in float64.)

    Args:
      query: [B, T, H, K].
      key: [B, S, G, K]; G divides H, and key head g serves the H / G query heads from g H / G on.
      value: [B, S, G, K].
      mask: bool[B, S], True at keys to read; None reads all.
      last: int32[B, T], the last key that each query may read; None sets no limit. A query
        without a key to read reads all keys alike.
      block: Queries at a time, 0 for all; in blocks, scores are computed again going back.

    Returns:
      [B, T, H, K].
    """
    tokens, shared = query.shape[-3], query.shape[-2] // key.shape[-2]
    if shared > 1:
        key, value = (jnp.repeat(x, shared, axis=-2) for x in (key, value))
    attend = partial(_attend, key, value, mask)
    if not 0 < block < tokens:
        return attend((query, last))

    def blocks(x: Array, axis: int) -> Array:
        """[.., T, ..] -> [T / block, .., block, ..]; what fills up is cut off again."""
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, -tokens % block)
        x = jnp.pad(x, widths)
        shape = (*x.shape[:axis], -1, block, *x.shape[axis + 1 :])
        return jnp.moveaxis(x.reshape(shape), axis, 0)

    batch_axes = query.ndim - 3
    cut = blocks(query, batch_axes), None if last is None else blocks(last, batch_axes)
    out = jax.lax.map(jax.checkpoint(attend, prevent_cse=False), cut)
    out = jnp.moveaxis(out, 0, batch_axes)  # [B, T / block, block, H, K]
    whole = (*query.shape[:batch_axes], -1, *query.shape[-2:])
    return out.reshape(whole)[..., :tokens, :, :]


def _attend(
    key: Array, value: Array, mask: Array | None, queries: tuple[Array, Array | None]
) -> Array:
    """Whole attention of some queries."""
    query, last = queries
    dtype = wide(query.dtype)
    scores = jnp.einsum("...thk,...shk->...hts", query, key, preferred_element_type=dtype)
    scores = scores * query.shape[-1] ** -0.5
    may_read = _may_read(mask, last, key.shape[-3])
    if may_read is not None:
        scores = jnp.where(may_read[..., None, :, :], scores, jnp.finfo(dtype).min)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    return jnp.einsum("...hts,...shk->...thk", weights, value)


def _may_read(mask: Array | None, last: Array | None, keys: int) -> Array | None:
    """bool[B, T or 1, S], or None if everything may be read."""
    allowed = None if mask is None else mask[..., None, :]
    if last is None:
        return allowed
    slots = jax.lax.broadcasted_iota(last.dtype, (*last.shape, keys), last.ndim)
    reached = slots <= last[..., None]
    return reached if allowed is None else reached & allowed


def turn(x: Array, positions: Array, theta: float) -> Array:
    """Turns halves of heads by rotary positions (Su et al. 2021, arXiv:2104.09864).

    Component i and K / 2 + i of a head form a pair, as in published LLaMA weights.

    Args:
      x: [B, T, H, K].
      positions: int32[B, T].
      theta: Pair i turns by position * theta^(-2 i / K).

    Returns:
      [B, T, H, K] in the dtype of ``x``; angles and products are float32 or wider.
    """
    dtype, half = wide(x.dtype), x.shape[-1] // 2
    speeds = jnp.asarray(theta, dtype) ** (-jnp.arange(half, dtype=dtype) / half)
    angles = jnp.tensordot(positions.astype(dtype), speeds, axes=0, precision="highest")
    angles = angles[..., None, :]  # [B, T, 1, K / 2]
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(dtype), 2, axis=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
