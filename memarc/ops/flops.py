"""Counts matrix products, and what devices send each other, in a function without running it.

A compiler's own count takes a loop's body once whatever its length; these multiply. Of a function
on a mesh (`jax.shard_map`) the counts are of one device.

Axes: B batch, M rows, K contracted, N columns of a product.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def matrix_flops(function: Callable[..., Any], *args: Any) -> int:
    """Counts 2 B M N K for every product; a scan's body as often as it runs, a branch at its most.

    A ``while`` loop, whose length nobody knows, counts once.

    Args:
      function: Anything that JAX can trace.
      *args: Arrays or abstract ones.

    Returns:
      Operations; rematerialised work counts as often as it is done.
    """
    return _total(function, args, _product)


def gathered_bytes(function: Callable[..., Any], *args: Any) -> int:
    """Counts the bytes that one device receives in ``all_gather``s, loops as `matrix_flops` does.

    Args:
      function: Anything that JAX can trace.
      *args: Arrays or abstract ones.
    """
    return _total(function, args, _received)


def _total(
    function: Callable[..., Any], args: tuple[Any, ...], count: Callable[[Any], int | None]
) -> int:
    return _count(jax.make_jaxpr(function)(*args).jaxpr, count)


def _count(jaxpr: core.Jaxpr, count: Callable[[Any], int | None]) -> int:
    return sum(_count_one(eqn, count) for eqn in jaxpr.eqns)


def _count_one(eqn: Any, count: Callable[[Any], int | None]) -> int:
    own = count(eqn)
    if own is not None:
        return own
    name, params = eqn.primitive.name, eqn.params
    inner = [_count(x, count) for value in params.values() for x in _jaxprs(value)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _product(eqn: Any) -> int | None:
    """Operations of one matrix product; None of any other equation."""
    if eqn.primitive.name != "dot_general":
        return None
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _received(eqn: Any) -> int | None:
    """Bytes that one device receives in one gather; None of any other equation."""
    if eqn.primitive.name != "all_gather":
        return None
    before, after = (
        math.prod(x.aval.shape) * x.aval.dtype.itemsize for x in (eqn.invars[0], eqn.outvars[0])
    )
    return after - before


def _jaxprs(value: Any) -> list[core.Jaxpr]:
    """The programs within a parameter of an equation."""
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    if isinstance(value, tuple | list):
        return [x for part in value for x in _jaxprs(part)]
    return []
