"""Sums clipped per-example gradients of a batch by one of several equal engines.

Axes: B batch, M microbatches, m microbatch size.
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
from memarc.privacy import summation
from memarc.privacy.apart import check_shape
from memarc.privacy.clipping import (
    Clipping,
    clip_and_sum,
    clip_and_sum_by_group,
    clip_factors,
    wide_dtype,
)
from memarc.privacy.summation import CompensatedSum
from memarc.typing import Array, Batch, LossFn, Params, Precompute, PyTree

Aux = dict[str, Array]

Summed = tuple[Params, Array, Array]
"""A sum, and norms [m] and losses [m], which are zero for rows that add nothing."""

MicrobatchEngine = Callable[[LossFn, Params, Params, Batch, Array, Clipping], Summed]
"""``(loss_fn, trainable, frozen, microbatch, is_padding[m], clipping) -> Summed``."""


def clipped_grad_sum(
    loss_fn: LossFn,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    is_padding: Array,
    *,
    clipping: Clipping,
    engine: str,
    microbatch_size: int,
    precompute: Precompute | None = None,
) -> tuple[Params, Aux]:
    """Sums per-example gradients after bounding each one's L2 norm over all of ``trainable``.

    The sum's L2 sensitivity to adding or removing one example is ``clipping.sensitivity``. Rows
    that are padding, or whose loss or gradient is not finite, add exactly zero. The result does
    not depend on engine or microbatch size beyond float32 rounding.

    Args:
      loss_fn: ``(trainable, frozen, batch) -> losses``, leading axis B, nothing couples examples.
      trainable: Exactly the parameters that are clipped, noised and updated.
      frozen: Everything else that the loss reads; gets no gradient.
      batch: Arrays that all lead with B.
      is_padding: bool[B].
      clipping: The rule and its bound.
      engine: A name in ``ENGINES``.
      microbatch_size: Rows differentiated at once, 1 to B; need not divide B. Memory only.
      precompute: Optional ``(frozen, batch) -> batch`` that needs no gradient (a frozen backbone);
        runs batched, once per microbatch, outside differentiation.

    Returns:
      The sum, shaped like ``trainable``, in float32 (float64 if a gradient is), and the private
      ``norms`` (before clipping, gradient units) and ``losses`` (nats), each [B], zero for rows
      that add nothing.

    Raises:
      ValueError: If the engine is unknown, or the shapes or ``microbatch_size`` disagree.

    Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1, without noise and division.
    """
    total, aux = add_clipped(
        summation.zero(trainable),
        loss_fn,
        trainable,
        frozen,
        batch,
        is_padding,
        clipping=clipping,
        engine=engine,
        microbatch_size=microbatch_size,
        precompute=precompute,
    )
    return total.value, aux


def add_clipped(
    total: CompensatedSum,
    loss_fn: LossFn,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    is_padding: Array,
    *,
    clipping: Clipping,
    engine: str,
    microbatch_size: int,
    precompute: Precompute | None = None,
) -> tuple[CompensatedSum, Aux]:
    """Adds the sum of `clipped_grad_sum` to one that is there, a microbatch at a time."""
    check_engine(engine)
    size = _batch_size(batch, is_padding)
    if not 1 <= microbatch_size <= size:
        raise ValueError(f"microbatch_size is {microbatch_size}; give 1 to {size}, the batch size.")

    def add_microbatch(
        total: CompensatedSum, given: tuple[Batch, Array]
    ) -> tuple[CompensatedSum, tuple[Array, Array]]:
        rows, is_row_padding = given
        if precompute is not None:
            rows = jax.lax.stop_gradient(precompute(frozen, rows))
        grad_sum, norms, losses = ENGINES[engine](
            loss_fn, trainable, frozen, rows, is_row_padding, clipping
        )
        return summation.add(total, grad_sum), (norms, losses)

    if microbatch_size == size:
        total, (norms, losses) = add_microbatch(total, (batch, is_padding))
        return total, {"norms": norms, "losses": losses}
    stacked = _split((batch, is_padding), microbatch_size)
    total, (norms, losses) = jax.lax.scan(add_microbatch, total, stacked)
    return total, {"norms": norms.reshape(-1)[:size], "losses": losses.reshape(-1)[:size]}


def loop(
    loss_fn: LossFn,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    is_padding: Array,
    clipping: Clipping,
) -> Summed:
    """Takes one example at a time: slow, obviously right, the oracle of all other engines."""
    clip = _clipper(loss_fn, trainable, frozen, batch, clipping)

    def add_row(
        total: CompensatedSum, row: tuple[Batch, Array]
    ) -> tuple[CompensatedSum, tuple[Array, Array]]:
        example, is_row_padding = row
        batch_of_one = jax.tree.map(lambda leaf: leaf[None], example)
        loss, gradient = jax.value_and_grad(_row_loss)(trainable, loss_fn, frozen, batch_of_one)
        is_kept = jnp.isfinite(loss) & ~is_row_padding
        gradient = jax.tree.map(lambda leaf: leaf[None], gradient)
        clipped, norms, is_added = clip(gradient, is_kept[None])
        loss = jnp.where(is_added[0], loss, jnp.zeros_like(loss))
        return summation.add(total, clipped), (norms[0], loss)

    rows = (batch, is_padding)
    total, (norms, losses) = jax.lax.scan(add_row, summation.zero(trainable), rows)
    return total.value, norms, losses


def vmap(
    loss_fn: LossFn,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    is_padding: Array,
    clipping: Clipping,
) -> Summed:
    """Takes the gradients of the whole microbatch at once: memory for m times ``trainable``."""

    def loss_and_gradient(example: Batch) -> tuple[Array, Params]:
        batch_of_one = jax.tree.map(lambda leaf: leaf[None], example)
        return jax.value_and_grad(_row_loss)(trainable, loss_fn, frozen, batch_of_one)

    losses, gradients = jax.vmap(loss_and_gradient)(batch)
    is_kept = jnp.isfinite(losses) & ~is_padding
    clip = _clipper(loss_fn, trainable, frozen, batch, clipping)
    grad_sum, norms, is_added = clip(gradients, is_kept)
    return grad_sum, norms, jnp.where(is_added, losses, jnp.zeros_like(losses))


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
    if clipping.scope == "per_layer":
        each = clipping.of_group(_group_count(places))
        factors = [
            jnp.where(is_kept, _group_factors(each, x), 0.0) if place.use else ()
            for place, x in zip(places, squares, strict=True)
        ]
        norms, is_added = _norms_of_groups(places, squares, is_kept), is_kept
    else:
        flat = [square.reshape(-1, rows).sum(0) for square in jax.tree.leaves(squares)]
        norms, is_added, common = _factors(flat, is_kept, clipping)
        factors = [jnp.broadcast_to(common, (*place.stack, rows)) for place in places]

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


ENGINES: dict[str, MicrobatchEngine] = {
    "loop": loop,
    "vmap": vmap,
    "ghost": ghost,
    "book_keeping": book_keeping,
}


ROW_BY_ROW = ("loop", "vmap")
"""Engines that show the loss one example at a time, so that it cannot couple any."""


def check_engine(name: str, *others: str) -> None:
    """Raises ValueError unless a name is one of `ENGINES`, or of other choices that stand there."""
    choices = (*others, *ENGINES)
    if name not in choices:
        raise ValueError(f"Unknown engine {name!r}; choose one of {choices}.")


def _clipper(
    loss_fn: LossFn, trainable: Params, frozen: Params, batch: Batch, clipping: Clipping
) -> Callable[[Params, Array], tuple[Params, Array, Array]]:
    """Builds ``(per-example gradients, is_kept[B]) -> (sum, norms[B], is_added[B])``."""
    if clipping.scope == "flat":
        return partial(clip_and_sum, clipping=clipping)
    # Only a trace of the loss tells which axes of a parameter are layers.
    places = find_places(loss_fn, trainable, frozen, batch)

    def clip(gradients: Params, is_kept: Array) -> tuple[Params, Array, Array]:
        stacks = [place.stack for place in places]
        grad_sum, norms = clip_and_sum_by_group(gradients, stacks, is_kept, clipping)
        return grad_sum, norms, is_kept

    return clip


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


def _by_layer(place: Place, function: Callable[[Any], Array], kept: PyTree) -> Array:
    """Applies a function to each layer of what was kept; one layer at a time."""
    return jax.lax.map(function, kept) if place.stack else function(kept)


def _row_loss(trainable: Params, loss_fn: LossFn, frozen: Params, batch_of_one: Batch) -> Array:
    """The scalar loss of one example that the model sees as a batch of one row."""
    losses = loss_fn(trainable, frozen, batch_of_one)
    check_shape(losses, 1)
    return losses[0]


def _batch_size(batch: Batch, is_padding: Array) -> int:
    """The leading axis that all arrays share."""
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(batch)}
    if is_padding.ndim != 1 or is_padding.dtype != jnp.bool_ or sizes != {is_padding.shape}:
        raise ValueError(
            f"is_padding is {is_padding.dtype}{is_padding.shape} and the batch's leading axes are "
            f"{sorted(sizes)}; give bool[B] and arrays that all lead with the same B."
        )
    return is_padding.shape[0]


def _split(rows: tuple[Batch, Array], microbatch_size: int) -> Any:
    """Reshapes leaves [B, ...] to [M, m, ...]; rows added to fill the last one are padding."""
    batch, is_padding = rows
    missing = -is_padding.shape[0] % microbatch_size

    def split(leaf: Array, fill: int | bool) -> Array:
        widths = [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)
        filled = jnp.pad(leaf, widths, constant_values=fill) if missing else leaf
        return filled.reshape((-1, microbatch_size, *leaf.shape[1:]))

    return jax.tree.map(lambda leaf: split(leaf, 0), batch), split(is_padding, True)
