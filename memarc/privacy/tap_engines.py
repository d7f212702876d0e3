"""Engines that catch gradients where parameters are used (`memarc.ops.taps`), of all rows at once.

Axes: B rows.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memarc.ops.precision import wide
from memarc.ops.taps import How, kept_shapes, refilled, weighted_sum_kept
from memarc.ops.uses import Place, attach, find_places
from memarc.privacy.apart import check_shape
from memarc.privacy.clipping import Clipping, clip_factors, wide_dtype
from memarc.typing import Array, Batch, LossFn, Params, PyTree, Summed


def ghost(
    loss_fn: LossFn,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    is_padding: Array,
    clipping: Clipping,
) -> Summed:
    """Makes one forward pass and two pull-backs: all norms first, then the weighted sum.

    No per-example gradient is kept. Source: Li et al. 2022, arXiv:2110.05679, section 4; here by
    taps (`memarc.ops.taps`). Per-layer clipping takes one pull-back: each gradient is clipped
    where it arises (He et al. 2022, arXiv:2212.01539).

    Both pull-backs are of ones, and the taps of the second apply the factors, in float32: pulled
    back, factors would be rounded with every product in bfloat16 or TF32, and where terms cancel
    the sum could hold more of a row than the norms say, without a limit.
    """
    places = find_places(loss_fn, trainable, frozen, batch)
    per_layer, rows = clipping.scope == "per_layer", is_padding.shape[0]
    taps = [
        jnp.zeros((*place.stack, rows), wide(place.use.output.dtype)) if place.use else ()
        for place in places
    ]
    each = clipping.of_group(_group_count(places)) if per_layer else clipping
    how = How("clip", factors=partial(_group_factors, each)) if per_layer else How("norms")

    def losses_of(trainable: Params, taps: list[PyTree]) -> Array:
        return loss_fn(attach(trainable, taps, how), frozen, batch)

    losses, pullback = jax.vjp(losses_of, trainable, taps)
    check_shape(losses, rows)
    is_kept = jnp.isfinite(losses) & ~is_padding
    if per_layer:
        grad_sum, squares = pullback(is_kept.astype(losses.dtype))
        norms = _norms_of_groups(places, squares, is_kept)
        is_added = is_kept
    else:
        _, squares = pullback(jnp.ones_like(losses))
        squares = [square.reshape(-1, rows).sum(0) for square in jax.tree.leaves(squares)]
        norms, is_added, factors = _factors(squares, is_kept, clipping)
        # Of another one than the first, or what both begin with is kept through all of the first.
        ones, factors = jax.lax.optimization_barrier((jnp.ones_like(losses), factors))
        filled = jax.tree.map(
            lambda tap: jnp.broadcast_to(factors.astype(tap.dtype), tap.shape), taps
        )
        again = refilled(pullback, taps, filled)
        if again is None:
            _, again = jax.vjp(losses_of, trainable, filled)
        grad_sum, _ = again(ones)
    grad_sum = jax.tree.map(lambda leaf: leaf.astype(wide_dtype(leaf)), grad_sum)
    return grad_sum, norms, jnp.where(is_added, losses, jnp.zeros_like(losses))


def book_keeping(
    loss_fn: LossFn,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    is_padding: Array,
    clipping: Clipping,
) -> Summed:
    """Makes one forward pass and one pull-back; the sum comes from what they kept of every use.

    For each parameter and layer the smaller is kept: inputs and output cotangents (ghost norm), or
    per-example gradients. Source: Bu et al. 2023, arXiv:2210.00038 (BK-MixOpt).
    """
    places = find_places(loss_fn, trainable, frozen, batch)
    rows, how = is_padding.shape[0], How("keep")
    shapes = [kept_shapes(place.use, place.stack) if place.use else () for place in places]
    taps = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def losses_of(taps: list[PyTree]) -> Array:
        return loss_fn(attach(trainable, taps, how), frozen, batch)

    losses, pullback = jax.vjp(losses_of, taps)
    check_shape(losses, rows)
    (kept,) = pullback(jnp.ones_like(losses))
    leaves, tree = jax.tree.flatten(trainable)

    squares: list[PyTree] = [
        found["squares"] if place.use else () for place, found in zip(places, kept, strict=True)
    ]
    is_kept = jnp.isfinite(losses) & ~is_padding
    norms, is_added, factors = _factors_of_places(places, squares, is_kept, clipping)

    def summed(place: Place, value: Array, found: PyTree, factors: PyTree) -> Array:
        use = place.use
        if use is None:
            return jnp.zeros(value.shape, wide_dtype(value))
        total = _by_layer(
            place, lambda layer: weighted_sum_kept(use, *layer), (value, found, factors)
        )
        return total.astype(wide_dtype(value))

    grad_sum = tree.unflatten(map(summed, places, leaves, kept, factors))
    return grad_sum, norms, jnp.where(is_added, losses, jnp.zeros_like(losses))


def _group_count(places: list[Place]) -> int:
    """The number of groups that per-layer clipping bounds."""
    return sum(math.prod(place.stack) for place in places)


def _group_factors(each: Clipping, squares: Array) -> Array:
    """Gives the clip factors of one group, from squared norms [..., B]."""
    return clip_factors(jnp.sqrt(squares), each)


def _norms_of_groups(places: list[Place], squares: list[PyTree], is_kept: Array) -> Array:
    """Takes norms [B] over all groups that are finite; zero for rows that are not kept."""
    rows = is_kept.shape[0]
    total = sum(
        jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x)).reshape(-1, rows).sum(0)
        for place, x in zip(places, squares, strict=True)
        if place.use
    )
    return jnp.where(is_kept, jnp.sqrt(total), 0.0)


def _factors(
    squares: list[Array], is_kept: Array, clipping: Clipping
) -> tuple[Array, Array, Array]:
    """Gives norms [B], bool[B] of the rows that are added, and clip factors [B] (else zero)."""
    norms = jnp.sqrt(sum(squares[1:], squares[0]))
    is_added = is_kept & jnp.isfinite(norms)
    norms = jnp.where(is_added, norms, jnp.zeros_like(norms))
    factors = jnp.where(is_added, clip_factors(norms, clipping), jnp.zeros_like(norms))
    return norms, is_added, factors


def _factors_of_places(
    places: list[Place], squares: list[PyTree], is_kept: Array, clipping: Clipping
) -> tuple[Array, Array, list[PyTree]]:
    """Does as `_factors`, from squares [*stack, B] of every place; factors are of that shape."""
    rows = is_kept.shape[0]
    if clipping.scope == "per_layer":
        each = clipping.of_group(_group_count(places))
        factors = [
            jnp.where(is_kept, _group_factors(each, x), 0.0) if place.use else ()
            for place, x in zip(places, squares, strict=True)
        ]
        return _norms_of_groups(places, squares, is_kept), is_kept, factors
    flat = [square.reshape(-1, rows).sum(0) for square in jax.tree.leaves(squares)]
    norms, is_added, common = _factors(flat, is_kept, clipping)
    return norms, is_added, [jnp.broadcast_to(common, (*place.stack, rows)) for place in places]


def _by_layer(place: Place, function: Callable[[Any], Array], kept: PyTree) -> Array:
    """Applies a function to each layer of what was kept; one layer at a time."""
    return jax.lax.map(function, kept) if place.stack else function(kept)
