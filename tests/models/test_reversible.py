"""The hand-written backward pass against autodiff, its inverse, and what it keeps in memory."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models import adapter, backbone, coupled
from memarc.models.coupled import Network, layer_backward, run, run_plainly
from memarc.models.couplings import COUPLINGS

ROWS, TOKENS = 3, 7
every_coupling = pytest.mark.parametrize("coupling", COUPLINGS)


def signs_for(coupling, depth, rows):
    """Signs [L, B, 1, 1] of a signed coupling, of all kinds; None for another."""
    if not COUPLINGS[coupling].signed:
        return None
    signs = np.where(np.random.default_rng(5).random((depth, rows, 1, 1)) < 0.5, -1.0, 1.0)
    return jnp.asarray(signs, dtype=float)


@pytest.fixture
def case(sizes, randomise):
    """Makes (network, adapters, layers, mask, signs, streams) with random weights."""

    def make(coupling, scale, depth, every, dtype="float64", weight=0.3):
        cfg = sizes(dtype=dtype, layers=depth)
        stack = lambda key: adapter.init_stack(cfg, 5, depth, key)
        shapes = jax.eval_shape(stack, jax.random.key(0))
        adapters = {
            name: randomise(shapes, seed=seed, scale=weight)
            for seed, name in enumerate(COUPLINGS[coupling].branches)
        }
        shapes = jax.eval_shape(lambda: backbone.init_layers(cfg, jax.random.key(0)))
        layers = randomise(shapes, seed=2, scale=weight)
        mask = jnp.arange(TOKENS)[None] < jnp.array([[7], [4], [1]])
        rng = np.random.default_rng(3)
        streams = tuple(
            jnp.asarray(rng.standard_normal((ROWS, TOKENS, cfg.width)), dtype=float)
            for _ in range(2)
        )
        net = Network(cfg, COUPLINGS[coupling], scale, every)
        return net, adapters, layers, mask, signs_for(coupling, depth, ROWS), streams

    return make


def gradients(function, jit):
    """The output and the gradients of adapters and streams under fixed, uneven cotangents."""

    def both(net, adapters, layers, mask, signs, streams):
        out, pullback = jax.vjp(
            lambda a, s: function(net, a, layers, mask, signs, s), adapters, streams
        )
        return out, pullback((jnp.sin(7 * out[0]), jnp.cos(5 * out[1])))

    return jit(both, static_argnums=0)


def relative_error(got, wanted):
    """The largest, over leaves, of |difference| / |wanted|."""

    def error(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.linalg.norm(a - b) / np.linalg.norm(b)

    return max(jax.tree.leaves(jax.tree.map(error, got, wanted)))


# The gradient.


@pytest.mark.checklist(29)
@pytest.mark.parametrize(
    ("scale", "depth", "every"),
    [
        (0.1, 4, 2),
        pytest.param(0.1, 3, 1, marks=pytest.mark.slow),
        pytest.param(0.5, 6, 3, marks=pytest.mark.slow),
        pytest.param(1.0, 4, 4, marks=pytest.mark.slow),
        pytest.param(0.3, 1, 1, marks=pytest.mark.slow),
    ],
)
@every_coupling
def test_the_backward_pass_by_hand_is_the_one_of_autodiff(
    float64, case, fast_jit, coupling, scale, depth, every
):
    arguments = case(coupling, scale, depth, every)
    out, got = gradients(run, fast_jit)(*arguments)
    plain, wanted = gradients(run_plainly, fast_jit)(*arguments)
    assert relative_error(out, plain) < 1e-12
    assert relative_error(got, wanted) < 1e-9


@pytest.mark.checklist(29)
@pytest.mark.parametrize(
    "scale", [0.05, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (0.4, 1.0))]
)
@every_coupling
def test_a_layer_backward_rebuilds_its_inputs(float64, case, fast_jit, coupling, scale):
    net, *stacked, mask, signs, streams = case(coupling, scale, 1, 1)
    adapters, layers, sign = jax.tree.map(lambda x: x[0], (*stacked, signs))

    def there_and_back(adapters, layers, streams):
        out = net.forward(adapters, layers, mask, sign, streams)
        return out, layer_backward(net, adapters, layers, mask, sign, out, streams)[0]

    out, rebuilt = fast_jit(there_and_back)(adapters, layers, streams)
    assert relative_error(out, streams) > 0.1
    assert relative_error(rebuilt, streams) < 1e-12


@pytest.mark.checklist(26)
def test_the_frozen_layers_get_no_gradient(float64, case, fast_jit):
    net, adapters, layers, mask, signs, streams = case("meft1", 0.5, 2, 1)
    loss = lambda a, l: jnp.sum(run(net, a, l, mask, signs, streams)[1])
    of_adapters, of_layers = fast_jit(jax.grad(loss, argnums=(0, 1)))(adapters, layers)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(of_adapters))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_layers))


# Drift, and the anchors that bound it: 12 layers in float32 at lambda = 0.1.


@pytest.mark.checklist(28, 29)
@pytest.mark.parametrize(
    "coupling", ["meft1", *(pytest.param(c, marks=pytest.mark.slow) for c in ("meft2", "meft3"))]
)
def test_anchors_keep_a_float32_gradient_right_where_none_lose_it(case, fast_jit, coupling):
    errors = {}
    arguments = case(coupling, 0.1, 12, 1, dtype="float32")
    plain, wanted = gradients(run_plainly, fast_jit)(*arguments)
    for every in (1, 12):
        arguments = case(coupling, 0.1, 12, every, dtype="float32")
        by_hand = gradients(run, fast_jit)
        out, got = by_hand(*arguments)
        assert relative_error(out, plain) < 1e-5
        errors[every] = relative_error(got, wanted)
        jax.tree.map(np.testing.assert_array_equal, by_hand(*arguments)[1], got)
    assert errors[1] < 5e-5  # Measured: 4e-6 to 8e-6.
    assert not errors[12] < 0.5  # Measured: 1.0 to 850; a sum that overflows is caught too.


# What is kept for the backward pass.


def kept_bytes(function, net, adapters, layers, mask, signs, streams):
    """Bytes kept beyond the weights; nothing is computed."""

    def pullback(adapters, layers, mask, signs, streams):
        return jax.vjp(lambda a, s: function(net, a, layers, mask, signs, s), adapters, streams)[1]

    def total(tree):
        return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))

    kept = jax.eval_shape(pullback, adapters, layers, mask, signs, streams)
    return total(kept) - total((adapters, layers, signs))


STREAMS = 2 * ROWS * TOKENS * 24 * 4  # Bytes of both streams.
MASK = ROWS * TOKENS


@every_coupling
def test_what_is_kept_does_not_grow_with_depth_beyond_the_anchors(case, coupling):
    for depth in (2, 4, 8):
        one_segment = case(coupling, 0.1, depth, depth, dtype="float32")
        assert kept_bytes(run, *one_segment) == STREAMS + MASK
        for every in (1, 2):
            anchored = case(coupling, 0.1, depth, every, dtype="float32")
            assert kept_bytes(run, *anchored) == STREAMS * depth // every + MASK


@every_coupling
def test_plain_autodiff_keeps_far_more_and_grows_with_depth(case, coupling):
    two, four, eight = (
        kept_bytes(run_plainly, *case(coupling, 0.1, depth, depth, dtype="float32"))
        for depth in (2, 4, 8)
    )
    assert eight - four == 2 * (four - two) > 8 * STREAMS


# The ends.


@every_coupling
def test_the_newest_stream_is_the_one_that_the_last_layer_changed_most(case, fast_jit, coupling):
    net, adapters, layers, mask, signs, streams = case(coupling, 0.1, 1, 1, dtype="float32")
    adapters = jax.tree.map(jnp.zeros_like, adapters)
    same = (streams[0], streams[0])
    one, two, sign = jax.tree.map(lambda x: x[0], (adapters, layers, signs))
    out = fast_jit(net.forward)(one, two, mask, sign, same)
    newest = coupled.finish(net.coupling, "newest", out)
    wanted = backbone.run_layers(net.config, layers, streams[0], mask)
    other = out[1 - net.coupling.newest]
    assert relative_error(newest, wanted) < 0.3 < relative_error(other, wanted)
    mean = coupled.finish(net.coupling, "mean", out)
    np.testing.assert_allclose(mean, (out[0] + out[1]) / 2, rtol=1e-6)


def test_streams_are_float32_where_the_states_are_bfloat16():
    x1, x2 = coupled.start(jnp.ones((2, 3, 4), jnp.bfloat16))
    assert x1.dtype == x2.dtype == jnp.float32
