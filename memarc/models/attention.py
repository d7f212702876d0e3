"""Scaled dot-product attention: masked, causal or near, whole or in blocks, over a cache or not.

Axes: B batch (or several batch axes), T queries, S keys, H heads, G key heads, K width of a head.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from memarc.ops.precision import wide_einsum
from memarc.typing import Array

_FARTHEST = 128  # Distances from here on share a bucket.


def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    first: Array | None = None,
    last: Array | None = None,
    bias: Array | None = None,
    width: float = 0.0,
    cap: float = 0.0,
    block: int = 0,
) -> Array:
    """Scaled dot-product attention; scores and softmax are float32, or float64 if the query is.

    (JAX's own function takes the softmax in float32 always, so it is no oracle in float64.)

    Args:
      query: [B, T, H, K].
      key: [B, S, G, K]; G divides H, and key head g serves the H / G query heads from g H / G on.
      value: [B, S, G, K].
      mask: bool[B, S], True at keys to read; None reads all.
      first: int32[B, T], the first key that each query may read; None sets no limit.
      last: int32[B, T], the last one. A query without a key to read reads all keys alike.
      bias: [B, T, S, H], added to scores; or None.
      width: Scores are divided by its root; 0 means K.
      cap: c > 0 turns scores s into c tanh(s / c), before masks; 0 leaves them.
      block: Queries at a time, 0 for all; in blocks, scores are computed again going back.

    Returns:
      [B, T, H, K].
    """
    tokens, shared = query.shape[-3], query.shape[-2] // key.shape[-2]
    if shared > 1:
        key, value = (jnp.repeat(x, shared, axis=-2) for x in (key, value))
    attend = partial(_attend, key, value, mask, (width or query.shape[-1]) ** -0.5, cap)
    queries = (query, first, last, bias)
    if not 0 < block < tokens:
        return attend(queries)
    batch_axes = query.ndim - 3

    def blocks(x: Array) -> Array:
        """[B, T, ..] -> [T / block, B, block, ..]; what fills up is cut off again."""
        widths = [(0, 0)] * x.ndim
        widths[batch_axes] = (0, -tokens % block)
        x = jnp.pad(x, widths)
        shape = (*x.shape[:batch_axes], -1, block, *x.shape[batch_axes + 1 :])
        return jnp.moveaxis(x.reshape(shape), batch_axes, 0)

    cut = jax.tree.map(blocks, queries)
    out = jax.lax.map(jax.checkpoint(attend, prevent_cse=False), cut)
    out = jnp.moveaxis(out, 0, batch_axes)  # [B, T / block, block, H, K]
    whole = (*query.shape[:batch_axes], -1, *query.shape[-2:])
    return out.reshape(whole)[..., :tokens, :, :]


_Queries = tuple[Array, Array | None, Array | None, Array | None]
"""Queries, and the first key, the last key and the biases of each."""


def _attend(
    key: Array, value: Array, mask: Array | None, scale: float, cap: float, queries: _Queries
) -> Array:
    """Whole attention of some queries."""
    query, first, last, bias = queries
    scores = wide_einsum("...thk,...shk->...hts", query, key) * scale
    if bias is not None:
        scores = scores + jnp.moveaxis(bias, -1, -3).astype(scores.dtype)
    if cap:
        scores = cap * jnp.tanh(scores / cap)
    may_read = _may_read(mask, first, last, key.shape[-3])
    if may_read is not None:
        scores = jnp.where(may_read[..., None, :, :], scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    return jnp.einsum("...hts,...shk->...thk", weights, value)


def _may_read(
    mask: Array | None, first: Array | None, last: Array | None, keys: int
) -> Array | None:
    """bool[B, T or 1, S], or None if everything may be read."""
    allowed = None if mask is None else mask[..., None, :]
    for limit, within in ((first, jnp.greater_equal), (last, jnp.less_equal)):
        if limit is not None:
            slots = jax.lax.broadcasted_iota(limit.dtype, (*limit.shape, keys), limit.ndim)
            reached = within(slots, limit[..., None])
            allowed = reached if allowed is None else reached & allowed
    return allowed


def distance_buckets(first: Array, second: Array, buckets: int) -> Array:
    """Buckets of the distances from first to second positions (T5, arXiv:1910.10683, section 2.1).

    Half of the buckets are for second positions that come later. In each half, the first half holds
    one distance each; the others hold longer and longer ranges up to 128, and what is beyond.

    Args:
      first: int32[..].
      second: int32[..].
      buckets: How many there are.

    Returns:
      int32[..] in 0 .. buckets - 1.
    """
    half = buckets // 2
    exact = half // 2
    distance = jnp.abs(first - second)
    ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact)
    far = exact + (ratio / math.log(_FARTHEST / exact) * (half - exact)).astype(distance.dtype)
    bucket = jnp.where(distance < exact, distance, jnp.minimum(far, half - 1))
    return bucket + jnp.where(second > first, half, 0)
