"""Gradients in bfloat16 are compared with those in float32 where updates have led."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from memarc.measure import precision
from memarc.measure.inspect import Opened
from memarc.models import backbone
from memarc.models.families.known import make_config
from memarc.ops import linear, taps

EPS = np.finfo(np.float32).eps
SHAPES = {"x": (3, 5, 6), "kernel": (6, 4), "s": (5, 4)}


def test_bfloat16_is_near_and_not_the_same_and_the_same_dtype_is(monkeypatch, tmp_path):
    config = make_config(
        "llama",
        vocab_size=23,
        width=24,
        layers=2,
        heads=3,
        feed_forward=40,
        max_positions=13,
        norm_epsilon=1e-5,
        activation="silu",
        dtype="float32",
    )
    model = Opened(tmp_path, config, backbone.init(config, jax.random.key(0)))
    rng = np.random.default_rng(0)
    ones = np.ones((3, 5), np.int32)
    batch = {
        "input_ids": rng.integers(1, 23, (3, 5), np.int32),
        "attention_mask": ones,
        "token_type_ids": 0 * ones,
        "is_target": ones,
    }
    monkeypatch.setattr(precision, "STEPS", 2)
    found = precision.measure(model, "lora", {}, batch)
    assert 1e-4 < found["relative_error"] < 0.1 and 0.99 < found["cosine"] < 1.0
    assert found["adapter_size"] > 1e-4 and len(found["errors_by_leaf"]) == 4
    assert 0.0 < found["allowance"] < 1e-3 and len(found["allowances_by_leaf"]) == 4
    monkeypatch.setattr(precision, "allowances", lambda *given: {})
    monkeypatch.setattr(
        precision, "_built", lambda *given, built=precision._built: built(*given[:3], "float32")
    )
    assert precision.measure(model, "lora", {}, batch)["relative_error"] == 0.0


def test_what_an_allowance_costs_is_the_excess_of_norms_over_those_of_gradients(monkeypatch):
    """By hand: an allowance a thousand times as wide costs so much more, and none nothing."""
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(x, np.float32) for name, x in SHAPES.items()}

    def loss(trainable, frozen, batch):
        out = linear.linear(batch["x"], trainable["kernel"])
        return jnp.einsum("bto,to->b", out, frozen["s"])

    model = types.SimpleNamespace(loss=loss, precompute=lambda frozen, batch: batch)
    batch = {"x": values["x"], "input_ids": np.zeros((3, 5), np.int32)}
    given = (model, {"kernel": values["kernel"]}, {"s": values["s"]}, batch)
    found, costs = precision.allowances(*given), []
    assert found["allowance"] == found["allowances_by_leaf"]["kernel"]
    for factor in (1e3, 0.0):
        monkeypatch.setattr(
            taps, "with_allowance", lambda x, spread, f=factor: x + f * EPS * spread**2
        )
        costs.append(precision.allowances(*given)["allowance"])
    each = np.einsum("bti,to->btio", values["x"], values["s"])
    spread = np.sqrt(np.square(each).sum((2, 3))).sum(1) ** 2
    formed = np.square(each.sum(1)).sum((1, 2))
    wanted = np.sqrt(1 + np.array([[1e3], [0.0]]) * EPS * spread / formed).max(1) - 1
    np.testing.assert_allclose(costs, wanted, rtol=1e-2, atol=1e-6)
