"""Bytes that a backward pass needs, without a device, and what a compiled program says it takes.

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

        def pullback(trainable, frozen, batch):
            prepared = precompute(frozen, batch)
            return jax.vjp(lambda t: loss_fn(t, frozen, prepared), trainable)[1]

        leaves = jax.tree.leaves(jax.eval_shape(pullback, trainable, frozen, resized))
        return sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves)

    return kept(2) - kept(1)


def compiled_bytes(compiled: jax.stages.Compiled) -> dict[str, int]:
    """What the compiler reports for one program, in bytes; empty where it reports nothing.

    On a CPU temporaries are only indicative: its compiler undoes some rematerialisation. Of a
    program that JAX's persistent cache gave back, a GPU's compiler knows no peak: that is then all
    that is set aside.

    Returns:
      arguments_bytes; output_bytes; temp_bytes, what is set aside for all else (gaps between
      arrays and, on a TPU, the program included); program_bytes; peak_bytes, the arrays alive at
      once, arguments included, in on-chip memory too; reserved_bytes, all that is set aside.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return {}
    arguments, outputs = analysis.argument_size_in_bytes, analysis.output_size_in_bytes
    temporaries, aliased = analysis.temp_size_in_bytes, analysis.alias_size_in_bytes
    reserved = arguments + outputs + temporaries - aliased
    return {
        "arguments_bytes": arguments,
        "output_bytes": outputs,
        "temp_bytes": temporaries,
        "program_bytes": analysis.generated_code_size_in_bytes,
        "peak_bytes": analysis.peak_memory_in_bytes or reserved,
        "reserved_bytes": reserved,
    }
