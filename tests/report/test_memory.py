"""Bytes kept for a backward pass, counted by hand."""

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
