"""Finds, without computing anything, where a loss uses each trainable parameter.

Taps give right norms only for a parameter that is used once: the gradient of one that is used
twice is a sum, whose squared norm has a cross term. Such parameters are refused by name.

Axes: B batch; ... the stacking axes of a parameter.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from memarc.ops.isolated import ISOLATED_NAME
from memarc.ops.taps import USE_NAME, How, Tapped, Use
from memarc.typing import Array, Params, PyTree

_RESHAPING = {"reshape", "squeeze", "slice", "broadcast_in_dim", "transpose", "copy"}


class NeedsTaps(ValueError):
    """A loss uses a parameter in a way that taps cannot follow."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one trainable parameter is used.

    Attributes:
      path: The parameter's path, such as ``tuning/query/a``.
      value: The parameter's abstract value, stacking axes included.
      stack: The stacking axes of the parameter, () or (layers,).
      use: Op and shapes of one layer; None if the loss does not use the parameter.
    """

    path: str
    value: jax.ShapeDtypeStruct
    stack: tuple[int, ...]
    use: Use | None

    def __str__(self) -> str:
        """One line of a printed plan."""
        if self.use is None:
            return f"{self.path} {list(self.value.shape)}: not used"
        norm = "ghost norm" if self.use.is_ghost else "instantiated"
        return f"{self.path} {list(self.value.shape)}: {self.use.op.name}, {norm}"


def find_places(
    loss_fn: Callable[..., Array], trainable: Params, frozen: Params, batch: PyTree
) -> list[Place]:
    """One `Place` per trainable leaf, in the order of ``jax.tree.leaves``.

    Args:
      loss_fn: ``(trainable, frozen, batch) -> losses [B]``.
      trainable: Parameters, arrays or abstract.
      frozen: Parameters, arrays or abstract.
      batch: Arrays [B, ...] or abstract ones.

    Raises:
      NeedsTaps: If the loss uses a trainable parameter outside `memarc.ops.taps.use`, or more
        than once; the message names it.
    """
    found: dict[int, Use] = {}
    how = How("record", record=found.__setitem__)
    leaves, tree = jax.tree_util.tree_flatten_with_path(trainable)
    paths = ["/".join(str(getattr(key, "key", key)) for key in path) for path, _ in leaves]

    def loss(values: Sequence[Array], frozen: Params, batch: PyTree) -> Array:
        tapped = [Tapped(value, (), how, i) for i, value in enumerate(values)]
        return loss_fn(jax.tree.unflatten(tree, tapped), frozen, batch)

    values = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for _, leaf in leaves]
    try:
        traced = jax.make_jaxpr(loss)(values, frozen, batch).jaxpr
    except (TypeError, AttributeError) as error:
        raise NeedsTaps(
            "This loss does not take taps: it uses a trainable parameter otherwise than by the "
            f"functions of memarc.ops.linear ({error}). Use engine 'vmap' and flat "
            "clipping, or those functions."
        ) from error
    places = []
    for i, (path, (_, leaf)) in enumerate(zip(paths, leaves, strict=True)):
        uses, _ = _count(traced, traced.invars[i])
        if uses > 1:
            raise NeedsTaps(
                f"The loss uses parameter {path} in {uses} places, so its norm has a cross term "
                "that taps do not give. Use engine 'vmap' and flat clipping for it."
            )
        use = found.get(i)
        stack = leaf.shape[: leaf.ndim - use.op.rank] if use else ()
        value = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        places.append(Place(path, value, stack, use))
    return places


def attach(trainable: Params, taps: list[PyTree], how: How) -> Params:
    """Wraps every trainable leaf with its tap."""
    leaves, tree = jax.tree.flatten(trainable)
    pairs = enumerate(zip(leaves, taps, strict=True))
    return jax.tree.unflatten(tree, [Tapped(value, tap, how, i) for i, (value, tap) in pairs])


def _count(jaxpr: core.Jaxpr, variable: Any, runs_once: bool = False) -> tuple[int, list[int]]:
    """How often a variable, or a reshaped form of it, meets an op; 2 or more for anything else.

    A loop of unknown length is anything else, unless the program is an isolated call, whose loop
    runs once; and so is a copy along a new axis, whose parts may be used one by one.

    Returns:
      The number, and the places among the program's results of the variable in any form.
    """
    same, total = {variable}, 0
    for eqn in jaxpr.eqns:
        for position, operand in enumerate(eqn.invars):
            if isinstance(operand, core.Literal) or operand not in same:
                continue
            if eqn.primitive.name in _RESHAPING and not _grows(eqn):
                same.update(eqn.outvars)
            elif eqn.primitive.name == "while" and runs_once:
                total += _count_in_loop(eqn, position)
            else:
                uses, results = _count_in(eqn, position)
                total += uses
                same.update(eqn.outvars[i] for i in results)
    return total, [i for i, x in enumerate(jaxpr.outvars) if x in same]


def _grows(eqn: core.JaxprEqn) -> bool:
    """Whether a result has more numbers than the operand."""
    operand, result = (x.aval for x in (eqn.invars[0], eqn.outvars[0]))
    return math.prod(result.shape) > math.prod(operand.shape)  # pyright: ignore


def _count_in(eqn: core.JaxprEqn, position: int) -> tuple[int, list[int]]:
    """Uses of one operand within an equation that may hold a program; results that it leaves as."""
    call = eqn.params.get("name")
    if call == USE_NAME:
        return 1, []
    names = [name for name in ("jaxpr", "call_jaxpr") if name in eqn.params]
    if not names:
        return 2, []
    inner = eqn.params[names[0]]
    inner = getattr(inner, "jaxpr", inner)  # Closed or open.
    within, results = _count(inner, inner.invars[position], call == ISOLATED_NAME)
    if eqn.primitive.name != "scan":
        return within, results
    if results:  # It leaves layer by layer, or is carried: not followed.
        return 2, []
    outer_aval: Any = eqn.invars[position].aval
    if outer_aval.ndim == inner.invars[position].aval.ndim:
        # Not cut into layers: one parameter for every layer, or carried through all.
        return within * max(2, eqn.params["length"]), []
    return within, []


def _count_in_loop(eqn: core.JaxprEqn, position: int) -> int:
    """Uses of one operand within the loop of an isolated call (`memarc.ops.isolated`).

    The loop has no reverse derivative, so it stands in a hand-written forward pass only, and the
    backward pass meets the tap itself.
    """
    body = eqn.params["body_jaxpr"].jaxpr
    first = eqn.params["cond_nconsts"]
    is_const = first <= position < first + eqn.params["body_nconsts"]
    if not is_const:
        return 2
    within, results = _count(body, body.invars[position - first])
    return 2 if results else within
