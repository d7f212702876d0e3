"""Gradients in bfloat16 are compared with those in float32 where updates have led."""

import jax
import numpy as np

from memarc.measure import precision
from memarc.measure.inspect import Opened
from memarc.models import backbone
from memarc.models.families.known import make_config


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
    monkeypatch.setattr(
        precision, "_built", lambda *given, built=precision._built: built(*given[:3], "float32")
    )
    assert precision.measure(model, "lora", {}, batch)["relative_error"] == 0.0
