"""What a compiled program says it takes."""

import jax


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
