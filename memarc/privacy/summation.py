"""Adds many clipped sums so that rounding does not grow with their number (Kahan 1965).

A float32 sum over thousands of rows rounds at every addition, by more than a row's part may be
worth in precision: leaving out one of 8,192 rows moved later roundings by 3e-3 of the clip norm.
What an addition loses is kept here and added to the next one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from memarc.privacy.clipping import wide_dtype
from memarc.typing import Array, Params


class CompensatedSum(NamedTuple):
    """A sum in two parts, each a tree like the parameters; their sum is nearly exact.

    Attributes:
      total: The sum, rounded.
      lost: What rounding has taken from it.
    """

    total: Params
    lost: Params

    @property
    def value(self) -> Params:
        """The sum, rounded once."""
        return jax.tree.map(jnp.add, self.total, self.lost)


def zero(trainable: Params) -> CompensatedSum:
    """The sum of nothing, float32 (float64 where a parameter is)."""

    def zeros() -> Params:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, wide_dtype(x)), trainable)

    return CompensatedSum(zeros(), zeros())


def add(found: CompensatedSum, more: Params) -> CompensatedSum:
    """Adds a tree to a sum."""
    corrected = jax.tree.map(jnp.add, found.lost, more)
    total = jax.tree.map(jnp.add, found.total, corrected)

    def lost(before: Array, after: Array, added: Array) -> Array:
        return added - (after - before)

    return CompensatedSum(total, jax.tree.map(lost, found.total, total, corrected))
