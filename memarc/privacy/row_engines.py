"""Engines that show the loss one row at a time, by a loop or by vmap: of any loss.

Axes: B rows.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from memarc.ops.uses import find_places
from memarc.privacy import summation
from memarc.privacy.apart import check_shape
from memarc.privacy.clipping import Clipping, clip_and_sum, clip_and_sum_by_group
from memarc.privacy.summation import CompensatedSum
from memarc.typing import Array, Batch, LossFn, Params, Summed


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


def _row_loss(trainable: Params, loss_fn: LossFn, frozen: Params, batch_of_one: Batch) -> Array:
    """The scalar loss of one example that the model sees as a batch of one row."""
    losses = loss_fn(trainable, frozen, batch_of_one)
    check_shape(losses, 1)
    return losses[0]
