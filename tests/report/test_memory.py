"""Bytes kept for a backward pass, counted by hand."""

import types

import jax
import jax.numpy as jnp

from memarc.report import memory

WEIGHTS = {"w": jax.ShapeDtypeStruct((5, 7), "float32")}
BATCH = {"x": jax.ShapeDtypeStruct((4, 5), "float32")}


def plain(trainable, frozen, batch):
    return jnp.sin(batch["x"] @ trainable["w"]).sum(1)


def unchanged(frozen, batch):
    return batch


def test_a_sine_layer_keeps_its_input_and_its_slope_per_example():
    """The input (5) for the weight gradient, the cosine (7) for the sine; weights are no rows'."""
    kept = memory.backward_bytes_per_example(plain, unchanged, WEIGHTS, {}, BATCH)
    assert kept == 4 * (5 + 7)


def test_what_is_computed_beforehand_counts_only_if_it_is_kept():
    def precompute(frozen, batch):
        wide = jnp.tanh(jnp.tile(batch["x"], (1, 100)))  # 500 numbers a row, none kept.
        return {"x": wide[:, :5]}

    kept = memory.backward_bytes_per_example(plain, precompute, WEIGHTS, {}, BATCH)
    assert kept == 4 * (5 + 7)


def test_depth_adds_and_checkpointing_takes_away():
    def deep(trainable, frozen, batch, wrap=lambda f: f):
        step = wrap(lambda x, w: (jnp.tanh(x @ w), None))
        return jax.lax.scan(step, batch["x"], trainable["w"])[0].sum(1)

    def kept(depth, wrap=lambda f: f):
        weights = {"w": jax.ShapeDtypeStruct((depth, 5, 5), "float32")}
        return memory.backward_bytes_per_example(
            lambda t, f, b: deep(t, f, b, wrap), unchanged, weights, {}, BATCH
        )

    assert kept(8) == 4 * kept(2) > 0
    assert kept(8, jax.checkpoint) < kept(8)


def test_a_compiled_program_reports_its_bytes():
    compiled = jax.jit(lambda x: x + 1.0).lower(jax.ShapeDtypeStruct((3, 5), "float32")).compile()
    found = memory.compiled_bytes(compiled)
    assert found["arguments_bytes"] == found["output_bytes"] == 60
    assert 120 <= found["peak_bytes"] <= found["reserved_bytes"]


def test_where_the_compiler_knows_no_peak_it_is_all_that_is_set_aside():
    """A GPU's says 0 of a program that comes from JAX's persistent cache."""
    figures = {"argument": 60, "output": 30, "temp": 500, "alias": 20, "generated_code": 7}
    analysis = {f"{name}_size_in_bytes": size for name, size in figures.items()}
    found = types.SimpleNamespace(**analysis, peak_memory_in_bytes=0)
    compiled = types.SimpleNamespace(memory_analysis=lambda: found)
    assert memory.compiled_bytes(compiled)["peak_bytes"] == 60 + 30 + 500 - 20
