"""Bytes that a backward pass needs, counted without a device.

Axes: B batch.
"""

import math
from collections.abc import Callable
from typing import Any

import jax

from memarc.typing import Params, PyTree


def backward_bytes_per_example(
    loss_fn: Callable[[Params, Params, PyTree], Any],
    precompute: Callable[[Params, PyTree], PyTree],
    trainable: Params,
    frozen: Params,
    batch: PyTree,
) -> int:
    """Bytes kept for the backward pass by each example of a batch.

    The difference between a batch of two and one row, so weights, which no row adds to, drop out.

    Args:
      loss_fn: ``(trainable, frozen, batch) -> losses [B]``.
      precompute: Work without a gradient; what the loss keeps of its result counts.
      trainable: Parameters, arrays or abstract ones.
      frozen: Parameters, arrays or abstract ones.
      batch: Abstract arrays [B, ...]; B is replaced.

    Returns:
      Bytes; independent of the device, before any compiler's rewriting.
    """

    def kept(rows: int) -> int:
        resized = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), batch)

        def pullback(trainable: Params, frozen: Params, batch: PyTree) -> Any:
            prepared = precompute(frozen, batch)
            return jax.vjp(lambda t: loss_fn(t, frozen, prepared), trainable)[1]

        leaves = jax.tree.leaves(jax.eval_shape(pullback, trainable, frozen, resized))
        return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)

    return kept(2) - kept(1)
