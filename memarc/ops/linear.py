"""The one linear map of every model; its kernel may be an array or a structured kernel.

A structured kernel is a pytree with a method ``linear(x, bias)``: a frozen matrix plus a low-rank
update, a matrix followed by an adapter, and so on. Tuning methods put such kernels where a
backbone's parameters had plain ones, so the backbone's code needs to know no tuning method.

Axes: ... any leading axes (batch, tokens), I inputs, O outputs.
"""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from memarc.typing import Array


@runtime_checkable
class StructuredKernel(Protocol):
    """A kernel that computes its own linear map; its first leaf has the plain kernel's shape."""

    def linear(self, x: Array, bias: Array | None) -> Array:
        """Maps x [..., I] to [..., O]."""
        ...


def linear(x: Array, kernel: Array | StructuredKernel, bias: Array | None = None) -> Array:
    """Computes ``x @ kernel + bias`` in the dtype of ``x``.

    Args:
      x: [..., I]; its dtype is the compute dtype.
      kernel: [I, O], or a structured kernel.
      bias: [O] or None.

    Returns:
      [..., O] in the dtype of ``x``.
    """
    if isinstance(kernel, StructuredKernel):
        return kernel.linear(x, bias)
    y = jax.lax.dot_general(x, kernel.astype(x.dtype), (((x.ndim - 1,), (0,)), ((), ())))
    return y if bias is None else add_trailing(y, bias)


def add_trailing(x: Array, vector: Array) -> Array:
    """Adds a vector [O] to x [..., O] in the dtype of x (no implicit rank promotion)."""
    return x + jnp.broadcast_to(vector.astype(x.dtype), x.shape)
