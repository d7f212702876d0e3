"""Counts the floating-point operations of matrix products in a function, without running it.

A compiler's own count takes a loop's body once whatever its length; this one multiplies.

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
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(map(_count_one, jaxpr.eqns))


def _count_one(eqn) -> int:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = eqn.invars[0].aval.shape
        return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
    inner = [_count(x) for value in params.values() for x in _jaxprs(value)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _jaxprs(value):
    """The programs within a parameter of an equation."""
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    if isinstance(value, tuple | list):
        return [x for part in value for x in _jaxprs(part)]
    return []
