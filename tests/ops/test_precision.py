"""A wide product goes back in the dtype of its operands, and computes no cotangent in vain."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import shapes
from memarc.measure.case import abstract, parse, plain_step
from memarc.ops.flops import matrix_flops
from memarc.ops.precision import wide, wide_einsum

SCORES = "btd,bsd->bts"
X, Y, G = (3, 5, 7), (3, 2, 7), (3, 5, 2)


def drawn(dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    kinds = (dtype, dtype, wide(jnp.dtype(dtype)))
    return [
        jax.random.normal(key, shape, kind)
        for key, shape, kind in zip(keys, (X, Y, G), kinds, strict=True)
    ]


def plain(x, y):
    return jnp.einsum(SCORES, x, y, preferred_element_type=wide(x.dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_of_wide_operands_it_is_the_einsum_and_its_gradients(dtype):
    with jax.enable_x64(True):
        x, y, g = drawn(dtype)
        value, pullback = jax.vjp(partial(wide_einsum, SCORES), x, y)
        wanted, wanted_pullback = jax.vjp(plain, x, y)
        for found, right in zip((value, *pullback(g)), (wanted, *wanted_pullback(g)), strict=True):
            assert found.dtype == right.dtype == dtype
            np.testing.assert_array_equal(found, right)


def test_the_cotangent_is_rounded_once():
    x, y, g = drawn("bfloat16")
    value, pullback = jax.vjp(partial(wide_einsum, SCORES), x, y)
    assert value.dtype == "float32"
    np.testing.assert_array_equal(value, plain(x, y))
    rounded = g.astype(jnp.bfloat16).astype(jnp.float32)
    exact = [
        np.einsum("bts,bsd->btd", rounded, y.astype("float32")),
        np.einsum("bts,btd->bsd", rounded, x.astype("float32")),
    ]
    for found, right in zip(pullback(g), exact, strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype("float32"), right, rtol=2**-8, atol=2**-6)


def test_only_what_is_wanted_is_multiplied():
    """Two products forward and back for one operand, three for both."""
    x, y, _ = drawn("float32")
    one = 2 * 3 * 5 * 2 * 7

    def loss(x, y):
        return wide_einsum(SCORES, x, y).sum()

    assert matrix_flops(jax.grad(loss), x, y) == 2 * one
    assert matrix_flops(jax.grad(loss, 1), x, y) == 2 * one
    assert matrix_flops(jax.grad(loss, (0, 1)), x, y) == 3 * one


ENCODER = {"kind": "roberta", "heads": 2}
DECODER = {"kind": "qwen2", "heads": 4, "kv_heads": 2, "max_positions": 32, "attention_block": 4}


@pytest.mark.parametrize(("build", "more"), [(shapes.encoder, ENCODER), (shapes.decoder, DECODER)])
def test_a_network_in_bfloat16_multiplies_bfloat16_forward_and_back(build, more):
    """No product takes float32 operands but those of an encoder's head, of two classes.

    Angles of rotary positions are an outer product with a vector; it is no matter of speed.
    """
    sizes = {"vocab_size": 53, "width": 16, "layers": 2, "feed_forward": 24, "dtype": "bfloat16"}
    case = parse(build(**sizes, **more).to_dict(), "full", batch_size=3, seq_len=6, layers=None)
    text = jax.jit(plain_step(case)).lower(*abstract(case, "none")).as_text()
    operands = re.findall(r"stablehlo.dot_general .* : \((tensor<\S+>), (tensor<\S+>)\)", text)
    wide_ones = [
        pair for pair in operands if "xf32" in "".join(pair) and min(x.count("x") for x in pair) > 1
    ]
    assert len(operands) > 12
    assert all("x2xf32" in "".join(pair) for pair in wide_ones), wide_ones
    assert bool(wide_ones) == (build is shapes.encoder)
