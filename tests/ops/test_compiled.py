"""Claims about what a compiled program says it takes."""

import types

import jax

from memarc.ops.compiled import compiled_bytes


def test_a_compiled_program_reports_its_bytes():
    compiled = jax.jit(lambda x: x + 1.0).lower(jax.ShapeDtypeStruct((3, 5), "float32")).compile()
    found = compiled_bytes(compiled)
    assert found["arguments_bytes"] == found["output_bytes"] == 60
    assert 120 <= found["peak_bytes"] <= found["reserved_bytes"]


def test_where_the_compiler_knows_no_peak_it_is_all_that_is_set_aside():
    """A GPU's says 0 of a program that comes from JAX's persistent cache."""
    figures = {"argument": 60, "output": 30, "temp": 500, "alias": 20, "generated_code": 7}
    analysis = {f"{name}_size_in_bytes": size for name, size in figures.items()}
    found = types.SimpleNamespace(**analysis, peak_memory_in_bytes=0)
    device = types.SimpleNamespace(device_set=[types.SimpleNamespace(platform="gpu")])
    compiled = types.SimpleNamespace(memory_analysis=lambda: found, output_shardings=[device])
    assert compiled_bytes(compiled)["peak_bytes"] == 60 + 30 + 500 - 20
