"""Claims about what a compiled program says it takes."""

import types

import jax
import pytest

from memarc.ops.compiled import compile_within, compiled_bytes, needed_bytes, own_bytes


def test_a_compiled_program_reports_its_bytes():
    compiled = jax.jit(lambda x: x + 1.0).lower(jax.ShapeDtypeStruct((3, 5), "float32")).compile()
    found = compiled_bytes(compiled)
    assert found["arguments_bytes"] == found["output_bytes"] == 60
    assert 120 <= found["peak_bytes"] <= found["reserved_bytes"]


def program(peak, platform):
    """What stands for a compiled program of some device."""
    figures = {"argument": 60, "output": 30, "temp": 500, "alias": 20, "generated_code": 7}
    analysis = {f"{name}_size_in_bytes": size for name, size in figures.items()}
    found = types.SimpleNamespace(**analysis, peak_memory_in_bytes=peak)
    devices = types.SimpleNamespace(device_set=[types.SimpleNamespace(platform=platform)])
    return types.SimpleNamespace(memory_analysis=lambda: found, output_shardings=[devices, devices])


@pytest.mark.parametrize(
    ("peak", "platform", "wanted"), [(77, "tpu", 77), (0, "gpu", 570), (77, "cpu", 570)]
)
def test_all_that_is_set_aside_stands_for_a_peak_that_is_not_known_or_is_a_cpus(
    peak, platform, wanted
):
    """A GPU's compiler says 0 of a program that comes from JAX's persistent cache."""
    assert 60 + 30 + 500 - 20 == 570
    figures = compiled_bytes(program(peak, platform))
    assert figures["peak_bytes"] == wanted and own_bytes(figures) == wanted - 60


def lowered(result):
    """What stands for a program that compiles to something, or fails."""
    return types.SimpleNamespace(compile=result)


def failing(message):
    raise jax.errors.JaxRuntimeError(message)


def test_a_program_fits_if_the_compiler_takes_it_and_its_peak_is_within_the_memory():
    """Compilers of GPUs and CPUs take what does not fit; one that says nothing is believed."""
    of_gpu = lowered(lambda: program(77, "gpu"))
    assert compile_within(of_gpu, 77) == (compiled_bytes(program(77, "gpu")), 77)
    assert compile_within(of_gpu, 76) == (None, 77)
    refused = lowered(lambda: failing("RESOURCE_EXHAUSTED: Used 3G of 2G hbm."))
    assert compile_within(refused, 2**40) == (None, 3 * 2**30)
    silent = lowered(lambda: types.SimpleNamespace(memory_analysis=lambda: None))
    assert compile_within(silent, 0) == ({}, 0) and own_bytes({}) == 0
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        compile_within(lowered(lambda: failing("INTERNAL: something else")), 2**40)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory. Used 25.50G of 15.75G hbm.", 51 * 2**29),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (27.97G) exceeds available HBM (15.75G).",
            round(27.97 * 2**30),
        ),
        ("RESOURCE_EXHAUSTED: no number", 0),
        ("INVALID_ARGUMENT: Used 3G of it.", None),
    ],
)
def test_needed_bytes_are_read_off_the_message(message, wanted):
    assert needed_bytes(RuntimeError(message)) == wanted
