"""What a compiled program says it takes, and whether a device has room for it."""

import math
import re

import jax
import jax.numpy as jnp

from memarc.typing import PyTree

_NEEDED = re.compile(r"(?:Used |temporaries \()([0-9.]+)([KMGT])")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def compiled_bytes(compiled: jax.stages.Compiled) -> dict[str, int]:
    """What the compiler reports for one program, in bytes; empty where it reports nothing.

    On a CPU temporaries are only indicative: its compiler undoes some rematerialisation, and the
    peak that it states leaves them out. There, and of a program that JAX's persistent cache gave
    back, of which a GPU's compiler knows no peak, the peak is all that is set aside.

    Returns:
      arguments_bytes; output_bytes; temp_bytes, what is set aside for all else (gaps between
      arrays and, on a TPU, the program included); program_bytes; peak_bytes, the arrays alive at
      once, arguments included, in on-chip memory too; reserved_bytes, all that is set aside.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return {}
    devices = jax.tree.leaves(compiled.output_shardings)[0].device_set
    is_cpu = next(iter(devices)).platform == "cpu"
    arguments, outputs = analysis.argument_size_in_bytes, analysis.output_size_in_bytes
    temporaries, aliased = analysis.temp_size_in_bytes, analysis.alias_size_in_bytes
    reserved = arguments + outputs + temporaries - aliased
    return {
        "arguments_bytes": arguments,
        "output_bytes": outputs,
        "temp_bytes": temporaries,
        "program_bytes": analysis.generated_code_size_in_bytes,
        "peak_bytes": reserved if is_cpu else analysis.peak_memory_in_bytes or reserved,
        "reserved_bytes": reserved,
    }


def own_bytes(figures: dict[str, int]) -> int:
    """The peak of what `compiled_bytes` gives without the arguments; 0 where nothing is known."""
    return figures.get("peak_bytes", 0) - figures.get("arguments_bytes", 0)


def compile_within(lowered: jax.stages.Lowered, memory: int) -> tuple[dict[str, int] | None, int]:
    """Compiles a program for a device that has so much memory.

    A TPU's compiler refuses what does not fit its device. A GPU's and a CPU's do not, so their
    peak is compared.

    Args:
      lowered: The program.
      memory: Bytes of one device.

    Returns:
      The figures of `compiled_bytes`, None if the program does not fit; and its peak, or the bytes
      that it would need.
    """
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = needed_bytes(error)
        if needed is None:
            raise
        return None, needed
    figures = compiled_bytes(compiled)
    peak = figures.get("peak_bytes", 0)
    return (figures if peak <= memory else None), peak


def needed_bytes(error: Exception) -> int | None:
    """Reads the bytes that a program needs off the compiler's out-of-memory message.

    Args:
      error: What the compiler raised.

    Returns:
      The bytes, or zero if the message gives no number; None if the error is another one.
    """
    if "RESOURCE_EXHAUSTED" not in str(error):
        return None
    found = _NEEDED.search(str(error))
    return round(float(found[1]) * _UNITS[found[2]]) if found else 0


def held_bytes(tree: PyTree) -> int:
    """Bytes that a tree of arrays, or of their shapes, takes on one device; keys are left out."""
    leaves = [x for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    return sum(
        math.prod(x.sharding.shard_shape(x.shape) if x.sharding else x.shape) * x.dtype.itemsize
        for x in leaves
    )
