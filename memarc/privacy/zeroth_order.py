"""Private slopes of losses along one random direction a step, from forward passes alone.

A step draws a direction u of all trained parameters. A row's slope along u is the difference of its
losses at theta + mu u and at theta - mu u over 2 mu: one number, which is clipped, summed and
noised as any gradient is, and then says how far along u the step's gradient reaches. On average
over directions that gradient is the loss's own, as the covariance of u is the identity.

A row's loss along a line has one parameter, so the engines of `memarc.privacy.engines` do the rest:
they are given the tangent that the two losses state, whose derivative is the slope. Nothing is
kept for a backward pass but a number a row. Directions are functions of a key and of the step's
number; they depend on no row, and whoever sees an update may know them.

Source: Tang et al. 2024, arXiv:2401.04343 (DP-ZO); Zhang et al. 2024, arXiv:2310.09639 (DPZero);
Malladi et al. 2023, arXiv:2305.17333 (without privacy).

Axes: B batch.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp

from memarc.ops.precision import wide
from memarc.privacy import noise
from memarc.privacy.clipping import wide_dtype
from memarc.typing import Array, Batch, LossFn, Params, Precompute

NAME = "zeroth_order"
"""The name by which a config asks for slopes, where names of engines stand."""

ENGINE = "vmap"
"""The engine that takes the slopes: it shows the loss one row at a time."""


@flax.struct.dataclass
class Directions:
    """The directions of a run.

    Attributes:
      key: A typed key, from which the direction of every step follows.
      probe: The distance mu > 0 from theta, both ways, in units of u.
    """

    key: Array
    probe: float = flax.struct.field(pytree_node=False)

    def __post_init__(self) -> None:
        """Checks the distance."""
        check_probe(self.probe)


@flax.struct.dataclass
class Line:
    """The line through the parameters on which a step looks at losses.

    Attributes:
      start: The parameters theta.
      directions: The directions of the run.
      step: The number of the step, int32[].
    """

    start: Params
    directions: Directions
    step: Array

    def direction(self) -> Params:
        """Draws u: standard normal, shaped like ``start``, float32 or wider; equal at every call.

        Noise of the same step is of another key (`memarc.privacy.sampling.streams`).
        """
        key = jax.random.fold_in(self.directions.key, self.step)
        leaves, tree = jax.tree.flatten(self.start)
        return tree.unflatten(noise.normals(key, leaves))

    def moved(self, distance: Array) -> Params:
        """The parameters at a distance from the start, float32[], in units of u."""

        def move(value: Array, along: Array) -> Array:
            return value + (distance.astype(along.dtype) * along).astype(value.dtype)

        return jax.tree.map(move, self.start, self.direction())


def check_probe(probe: float) -> None:
    """Raises ValueError unless a distance is a finite number above 0."""
    if not (math.isfinite(probe) and probe > 0):
        raise ValueError(f"probe is {probe}; give a finite number above 0, such as 1e-3.")


def summed(point: Params | Line) -> Params:
    """Something shaped like the sum of a step: the parameters, or of a line one number."""
    if not isinstance(point, Line):
        return point
    dtypes = [wide_dtype(leaf) for leaf in jax.tree.leaves(point.start)]
    return jnp.zeros((), max(dtypes, key=lambda dtype: dtype.itemsize))


def differentiated(
    loss_fn: LossFn, precompute: Precompute, point: Params | Line, frozen: Params
) -> tuple[LossFn, Precompute, Params, Params]:
    """What the engines differentiate at a point.

    Args:
      loss_fn: Per-example losses.
      precompute: The part without a gradient.
      point: The parameters, or a line through them.
      frozen: All other parameters.

    Returns:
      Loss, precompute, trainable and frozen parameters as they are given, or of a line: the tangent
      of each row's loss, whose one parameter is the distance along the line, 0.
    """
    if not isinstance(point, Line):
        return loss_fn, precompute, point, frozen
    probe = point.directions.probe

    def tangents(distance: Array, given: tuple[Line, Params], batch: Batch) -> Array:
        line, frozen = given

        def losses_at(distance: Array) -> Array:
            losses = loss_fn(line.moved(distance), frozen, batch)
            return losses.astype(wide(losses.dtype))

        # One after the other, so that no more than one set of moved parameters is held.
        ahead, behind = jax.lax.map(losses_at, jnp.asarray([probe, -probe], jnp.float32))
        slopes = (ahead - behind) / (2 * probe)
        return ahead.astype(distance.dtype) + distance * slopes.astype(distance.dtype)

    def prepared(given: tuple[Line, Params], batch: Batch) -> Batch:
        return precompute(given[1], batch)

    return tangents, prepared, summed(point), (point, frozen)


def row_engine(name: str) -> str:
    """The engine of `memarc.privacy.engines` by which a config's choice is computed."""
    return ENGINE if name == NAME else name


def lifted(private: Params, point: Params | Line) -> Params:
    """The private gradient of a step: as it is, or of a line the private slope times u."""
    if not isinstance(point, Line):
        return private
    return jax.tree.map(lambda along: private.astype(along.dtype) * along, point.direction())
