"""What a compiled program says it takes, in bytes."""

import jax


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
