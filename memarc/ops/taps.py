"""Taps: per-example norms and gradients of parameters, read off an ordinary backward pass.

A parameter may arrive wrapped as `Tapped`: its value, and a tap that the forward pass never
reads. Where the parameter is used, a hand-written derivative gives the tap a "cotangent" of our
choice: per-example squared gradient norms ("norms"), or what is needed to build per-example
gradients later ("keep"). Cotangents pass through `lax.scan`, `jax.checkpoint` and custom backward
passes by themselves, so no model needs to know that it is tapped.

Every use of a parameter goes through `use`; anything else fails loudly, because a `Tapped` is no
array. So no parameter can be trained and yet missing from the norm.

Axes: B batch; ... the stacking axes of a parameter (layers of a scan), which precede its own.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memarc.ops.precision import wide, with_allowance
from memarc.typing import Array, PyTree

Inputs = tuple[Array, ...]
"""What meets a parameter, each [B, ...]; integers get no cotangent."""

Shape = tuple[int, ...]

USE_NAME = "use_of_tapped_parameter"
"""Name of the call that stands for a use in a recorded trace (`memarc.ops.uses`)."""


@dataclasses.dataclass(frozen=True)
class Op:
    """One way in which a parameter meets batched inputs; nothing in it couples examples.

    Attributes:
      name: For messages and printed plans.
      rank: Number of the parameter's own axes.
      apply: ``(value, *inputs [B, ...]) -> output [B, ...]``, linear or not in ``value``.
      instantiate: ``(value, inputs, g) -> [B, *own]``: per-example gradients from the output's
        cotangent g [B, ...].
      ghost: None, or ``(value, inputs, g) -> [B]``: their squared norms without forming them.
      prefers_ghost: ``(value shape, input shapes) -> bool``: whether ``ghost`` is the cheaper.
      weighted_sum: ``(value, inputs, g, factors [B]) -> own``: the sum over B of factors times
        per-example gradients, without forming them. Factors apply in float32 or wider.
      spread: ``(value, inputs, g) -> [B]``: the lengths of the terms, of a token each, that
        ``weighted_sum`` adds up for a row; None where it adds up per-example gradients.
    """

    name: str
    rank: int
    apply: Callable[..., Array]
    instantiate: Callable[[Array, Inputs, Array], Array]
    ghost: Callable[[Array, Inputs, Array], Array] | None
    prefers_ghost: Callable[[Shape, tuple[Shape, ...]], bool]
    weighted_sum: Callable[[Array, Inputs, Array, Array], Array]
    spread: Callable[[Array, Inputs, Array], Array] | None


@dataclasses.dataclass(frozen=True)
class Use:
    """Where a parameter was met: the op, and abstract inputs [B, ...] and output of one layer."""

    op: Op
    value: jax.ShapeDtypeStruct
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    output: jax.ShapeDtypeStruct

    @property
    def is_ghost(self) -> bool:
        """Whether norms are taken without forming per-example gradients."""
        shapes = tuple(x.shape for x in self.inputs)
        return self.op.ghost is not None and self.op.prefers_ghost(self.value.shape, shapes)


@dataclasses.dataclass(frozen=True, eq=False)
class How:
    """What the taps of one trace do; compared by identity, so no cached trace is reused.

    Attributes:
      mode: "norms": the tap gets squared norms [B], and the gradient is the sum over B of
        per-example ones times factors [B], which the tap held. "clip": the same, with factors that
        follow from the norms at once. "keep": the tap gets what `keep` gives. "record":
        ``record`` is called with (index, `Use`).
      record: What the mode "record" calls.
      factors: How the mode "clip" scales rows: ``squared norms [B] -> factors [B]``.
    """

    mode: str
    record: Callable[[int, Use], None] | None = None
    factors: Callable[[Array], Array] | None = None


@partial(
    jax.tree_util.register_dataclass, data_fields=["value", "tap"], meta_fields=["how", "index"]
)
@dataclasses.dataclass(frozen=True)
class Tapped:
    """A parameter with its tap; ``index`` is its place among the trainable leaves."""

    value: Array
    tap: PyTree
    how: How
    index: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The property of the value that is tapped."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """The property of the value that is tapped."""
        return self.value.ndim

    @property
    def dtype(self) -> Any:
        """The property of the value that is tapped."""
        return self.value.dtype


def use(op: Op, parameter: Array | Tapped, *inputs: Array) -> Array:
    """Applies an op to a parameter, tapped or not.

    Args:
      op: The op.
      parameter: An array of ``op.rank`` axes, or a tapped one.
      *inputs: Each leads with B; integer inputs get no cotangent.

    Returns:
      ``op.apply(value, *inputs)``.
    """
    if not isinstance(parameter, Tapped):
        return op.apply(parameter, *inputs)
    if parameter.how.mode == "record":
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (parameter.value, *inputs)]
        output = jax.eval_shape(op.apply, *shapes)
        assert parameter.how.record is not None
        parameter.how.record(parameter.index, Use(op, shapes[0], tuple(shapes[1:]), output))
        return _named(op.apply)(parameter.value, *inputs)
    return _tapped(op, parameter.how, parameter.value, parameter.tap, inputs)


def _named(apply: Callable[..., Array]) -> Callable[..., Array]:
    """A call that keeps its own name in a trace."""

    def call(*operands: Array) -> Array:
        return apply(*operands)

    call.__name__ = USE_NAME
    return jax.jit(call)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _tapped(op: Op, how: How, value: Array, tap: PyTree, inputs: Inputs) -> Array:
    del how, tap
    return op.apply(value, *inputs)


def _tapped_forward(
    op: Op, how: How, value: Array, tap: PyTree, inputs: Inputs
) -> tuple[Array, tuple[Array, PyTree, Inputs]]:
    del how
    return op.apply(value, *inputs), (value, tap, inputs)


def _tapped_backward(
    op: Op, how: How, residuals: tuple[Array, PyTree, Inputs], g: Array
) -> tuple[Array | None, PyTree, tuple[Array | None, ...]]:
    value, tap, inputs = residuals
    floats = [jnp.issubdtype(x.dtype, jnp.floating) for x in inputs]

    def of_floats(*some: Array) -> Array:
        given = iter(some)
        return op.apply(
            value, *(next(given) if f else x for f, x in zip(floats, inputs, strict=True))
        )

    # What goes on does not wait for the barrier, or inputs and cotangents would be held for longer.
    _, pullback = jax.vjp(of_floats, *(x for x, f in zip(inputs, floats, strict=True) if f))
    cotangents = iter(pullback(g))
    through = tuple(next(cotangents) if f else None for f in floats)
    # What norms are taken of is what sums are made of: no rounding of it depends on its readers.
    if how.mode == "keep":
        return None, keep(op, value, inputs, g), through
    inputs, g = jax.lax.optimization_barrier((inputs, g))
    squares = squared_norms(op, value, inputs, g)
    factors = tap if how.factors is None else how.factors(squares)
    inputs, g = _of_kept_rows((inputs, g), factors)
    gradient = op.weighted_sum(value, inputs, g, factors)
    return gradient.astype(value.dtype), squares, through


_tapped.defvjp(_tapped_forward, _tapped_backward)


def refilled(
    pullback: Callable[..., Any], taps: list[PyTree], factors: list[PyTree]
) -> Callable[..., Any] | None:
    """A pull-back whose taps hold other factors; what the forward pass has kept stays as it is.

    No forward pass reads a tap, so taps are among what a pull-back holds just as they were given.

    Args:
      pullback: From `jax.vjp` of a function of ``taps``.
      taps: As they were given, each an array of its own.
      factors: As many arrays of the same shapes.

    Returns:
      The pull-back, or None if it does not hold every tap once: then begin anew.
    """
    held, tree = jax.tree.flatten(pullback)
    for tap, factor in zip(jax.tree.leaves(taps), jax.tree.leaves(factors), strict=True):
        places = [i for i, x in enumerate(held) if x is tap]
        if len(places) != 1:
            return None
        held[places[0]] = factor
    return jax.tree.unflatten(tree, held)


def squared_norms(op: Op, value: Array, inputs: Inputs, g: Array) -> Array:
    """Per-example squared gradient norms, float32[B] or wider, by the cheaper way.

    Where a sum is of a row's terms and not of its gradient, it rounds them otherwise than the norm.
    """
    if op.ghost is not None and op.prefers_ghost(value.shape, tuple(x.shape for x in inputs)):
        return op.ghost(value, inputs, g)
    squares = _sum_of_squares(op.instantiate(value, inputs, g))
    return squares if op.spread is None else with_allowance(squares, op.spread(value, inputs, g))


def keep(op: Op, value: Array, inputs: Inputs, g: Array) -> PyTree:
    """What `weighted_sum_kept` needs later, the smaller of two forms, and "squares", norms of it.

    Integer inputs are held as float32, exact below 2^24, because a cotangent must be a float.
    Per-example gradients are rounded to the cotangent's dtype, half the bytes where it is bfloat16.
    Norms and sums are both of the rounded ones, so no row adds more than its norm says. What is not
    finite makes its row's norm so, and counts as zero in the sum: nothing of that row is added.
    """
    if op.ghost is not None and op.prefers_ghost(value.shape, tuple(x.shape for x in inputs)):
        inputs, g = jax.lax.optimization_barrier((inputs, g))
        kept = {"inputs": tuple(_as_float(_silenced(x)) for x in inputs), "g": _silenced(g)}
        return kept | {"squares": op.ghost(value, inputs, g)}
    gradients = jax.lax.optimization_barrier(op.instantiate(value, inputs, g).astype(g.dtype))
    return {"gradients": gradients, "squares": _sum_of_squares(gradients)}


def kept_shapes(found: Use, stack: tuple[int, ...]) -> PyTree:
    """Shapes of what "keep" gives for a use, behind the parameter's stacking axes."""
    kept = jax.eval_shape(partial(keep, found.op), found.value, found.inputs, found.output)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*stack, *x.shape), x.dtype), kept)


def weighted_sum_kept(found: Use, value: Array, kept: PyTree, factors: Array) -> Array:
    """Sum over B of factors [B] times per-example gradients; rows of factor 0 add exactly 0."""
    if "gradients" in kept:
        gradients = _widened(_silenced(kept["gradients"]))
        return jnp.tensordot(
            factors.astype(gradients.dtype), gradients, axes=1, precision=jax.lax.Precision.HIGHEST
        )
    inputs, g = _of_kept_rows((_restore(found, kept["inputs"]), kept["g"]), factors)
    return found.op.weighted_sum(value, inputs, g, factors)


def _widened(x: Array) -> Array:
    return x.astype(wide(x.dtype))


def _sum_of_squares(gradients: Array) -> Array:
    return jnp.sum(jnp.square(_widened(gradients)), axis=tuple(range(1, gradients.ndim)))


def _silenced(x: Array) -> Array:
    """Zeros for what is not finite, as zero times NaN is not zero."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x))


def _of_kept_rows(rows: PyTree, factors: Array) -> PyTree:
    """Zeros in rows [B, ...] of factor 0: what overflows on the way to a sum is not zero there."""

    def kept(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        is_kept = (factors != 0).reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(jnp.logical_and(is_kept, jnp.isfinite(x)), x, jnp.zeros_like(x))

    return jax.tree.map(kept, rows)


def _as_float(x: Array) -> Array:
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def _restore(found: Use, inputs: Inputs) -> Inputs:
    return tuple(x.astype(s.dtype) for x, s in zip(inputs, found.inputs, strict=True))
