"""Counts the bytes that a backward pass needs, without a device.

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
    """Counts the bytes that each example of a batch keeps for the backward pass.

    The count is the difference between a batch of two rows and one row, so weights, which no row
    adds to, drop out.

    Args:
      loss_fn: ``(trainable, frozen, batch) -> losses [B]``.
      precompute: Work without a gradient; what the loss keeps of its result counts.
      trainable: Parameters, arrays or abstract ones.
      frozen: Parameters, arrays or abstract ones.
      batch: Abstract arrays [B, ...]; B is replaced.

    Returns:
      The bytes, which do not depend on the device: they are before any compiler's rewriting.
    """

    def kept(rows: int) -> int:
        resized = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), batch)

        def pullback(trainable: Params, frozen: Params, batch: PyTree) -> Callable[..., Any]:
            prepared = precompute(frozen, batch)
            return jax.vjp(lambda t: loss_fn(t, frozen, prepared), trainable)[1]

        leaves = jax.tree.leaves(jax.eval_shape(pullback, trainable, frozen, resized))
        return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)

    return kept(2) - kept(1)
