"""Adapters against values worked out by hand and against one layer written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models import adapter
from memarc.models.couplings import Branch
from memarc.models.layers import Attention, FeedForward, apply
from memarc.ops.linear import linear

HAND = {  # D = 2, R = 3: down(x) = x @ kernel + bias, relu, up.
    "down": {
        "kernel": jnp.array([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]]),
        "bias": jnp.array([0.0, -3.0, 1.0]),
    },
    "up_kernel": jnp.array([[2.0, 0.0], [0.0, 5.0], [7.0, 7.0]]),
    "up_bias": jnp.array([0.5, -0.5]),
}
# down((1, 2)) = (1, -1, -2), relu (1, 0, 0), up (2, 0) + bias.
HAND_IN, HAND_OUT = jnp.array([[1.0, 2.0]]), np.array([[2.5, -0.5]])


def test_an_adapter_is_down_activation_up(sizes):
    got = adapter.run(sizes(activation="relu"), HAND, HAND_IN)
    np.testing.assert_array_equal(got, HAND_OUT)


def test_a_series_kernel_is_y_plus_the_adapter_of_y(sizes):
    base, bias = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), jnp.array([0.0, 1.0])
    kernel = adapter.SeriesKernel(base, HAND, sizes(activation="relu"))
    got = linear(jnp.array([[1.0, 1.0, 0.0]]), kernel, bias)  # y = (1, 2).
    np.testing.assert_array_equal(got, HAND_OUT + HAND_IN)


def norm(x, params, epsilon=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return scaled * params["scale"] + params["bias"]


def dense(x, params):
    return x @ params["kernel"] + params["bias"]


def in_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def written_out(x, params):
    """Relu adapter."""
    params = in_numpy(params)
    return np.maximum(dense(x, params["down"]), 0.0) @ params["up_kernel"] + params["up_bias"]


@pytest.fixture
def one_layer(float64, sizes, weights, randomise):
    """(config, one layer's parameters, an adapter, hidden states [B, T, D]) in float64."""
    cfg = sizes(dtype="float64", activation="relu")
    layer = jax.tree.map(lambda x: x[0], weights(cfg)["layers"])
    shapes = jax.eval_shape(lambda: adapter.init_stack(cfg, 5, 1, jax.random.key(0)))
    params = jax.tree.map(lambda x: x[0], randomise(shapes))
    hidden = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 24)))
    return cfg, layer, params, hidden


def test_a_parallel_adapter_adds_to_the_feed_forward_block_before_residual_and_norm(one_layer):
    cfg, layer, params, hidden = one_layer
    block, x = in_numpy(layer["feed_forward"]), np.asarray(hidden)
    inner = np.maximum(dense(x, block["intermediate"]), 0.0)
    wanted = norm(x + dense(inner, block["output"]) + written_out(x, params), block["norm"])
    branch = Branch(attends=False, adapter="parallel")
    got = branch(cfg, params, layer, hidden, jnp.ones((2, 7), bool))
    np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-11)


def test_a_series_adapter_follows_the_feed_forward_map_before_residual_and_norm(one_layer):
    cfg, layer, params, hidden = one_layer
    block, x = in_numpy(layer["feed_forward"]), np.asarray(hidden)
    y = dense(np.maximum(dense(x, block["intermediate"]), 0.0), block["output"])
    wanted = norm(x + y + written_out(y, params), block["norm"])
    changed = adapter.in_series(layer, "feed_forward", params, cfg)
    got = apply(FeedForward(cfg), changed["feed_forward"], hidden, hidden)
    np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-11)


def mixed_values(cfg, attention, x):
    """Softmax(q k / sqrt(K)) v of each head, written out: [B, T, D]."""
    shape = (2, 7, cfg.heads, cfg.head_width)
    query, key, value = (dense(x, attention[n]).reshape(shape) for n in ("query", "key", "value"))
    odds = np.exp(np.einsum("bthk,bshk->bhts", query, key) / np.sqrt(cfg.head_width))
    odds = odds / odds.sum(-1, keepdims=True)
    return np.einsum("bhts,bshk->bthk", odds, value).reshape(2, 7, 24)


def test_a_series_adapter_follows_the_output_map_of_attention_before_residual_and_norm(one_layer):
    cfg, layer, params, hidden = one_layer
    block, x = in_numpy(layer["attention"]), np.asarray(hidden)
    y = dense(mixed_values(cfg, block, x), block["output"])
    wanted = norm(x + y + written_out(y, params), block["norm"])
    changed = adapter.in_series(layer, "attention", params, cfg)
    got = apply(Attention(cfg), changed["attention"], hidden, jnp.ones((2, 7), bool))
    np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-11)


def test_a_new_stack_adds_nothing_and_differs_from_layer_to_layer(sizes, fast_jit):
    stack = fast_jit(lambda key: adapter.init_stack(sizes(), 5, 3, key))(jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, stack) == {
        "down": {"kernel": (3, 24, 5), "bias": (3, 5)},
        "up_kernel": (3, 5, 24),
        "up_bias": (3, 24),
    }
    assert not np.any(stack["up_kernel"]) and not np.any(stack["up_bias"])
    assert np.unique(stack["down"]["kernel"]).size > 350  # Of 360: all layers are drawn apart.
    one = jax.tree.map(lambda x: x[0], stack)
    assert not np.any(adapter.run(sizes(), one, jnp.ones((2, 24))))
