"""The hand-written backward pass against autodiff, its inverse, and what it keeps in memory."""

import functools
import itertools
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


@functools.lru_cache
def shapes_of(cfg):
    """Of stacks of an adapter and of the layers."""
    key = jax.random.key(0)
    adapters = jax.eval_shape(lambda: adapter.init_stack(cfg, 5, cfg.layers, key))
    return adapters, jax.eval_shape(lambda: backbone.init_layers(cfg, key))


@pytest.fixture
def case(sizes, randomise):
    """Makes (network, adapters, layers, mask, signs, streams) with random weights."""

    def make(coupling, scale, depth, every, dtype="float64", weight=0.3):
        cfg = sizes(dtype=dtype, layers=depth)
        of_adapter, of_layers = shapes_of(cfg)
        adapters = {
            name: randomise(of_adapter, seed=seed, scale=weight)
            for seed, name in enumerate(COUPLINGS[coupling].branches)
        }
        layers = randomise(of_layers, seed=2, scale=weight)
        mask = np.arange(TOKENS) < np.array([[7], [4], [1]])
        rng = np.random.default_rng(3)
        streams = tuple(
            jnp.asarray(rng.standard_normal((ROWS, TOKENS, cfg.width)), dtype=float)
            for _ in range(2)
        )
        net = Network(cfg, COUPLINGS[coupling], scale, every)
        return net, adapters, layers, mask, signs_for(coupling, depth, ROWS), streams

    return make


def gradients(function, jit):
    """The output, and gradients under fixed, uneven cotangents.

    Of adapters and streams, and of the layers.
    """

    def both(net, adapters, layers, mask, signs, streams):
        out, pullback = jax.vjp(
            lambda a, s, l: function(net, a, l, mask, signs, s), adapters, streams, layers
        )
        *got, of_layers = pullback((jnp.sin(7 * out[0]), jnp.cos(5 * out[1])))
        return out, got, of_layers

    return jit(both, static_argnums=0)


def plainly(net, adapters, layers, *given):
    """By autodiff, of layers that are frozen."""
    return run_plainly(net, adapters, jax.lax.stop_gradient(layers), *given)


def relative_error(got, wanted):
    """The largest, over leaves, of |difference| / |wanted|."""

    def error(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.linalg.norm(a - b) / np.linalg.norm(b)

    return max(jax.tree.leaves(jax.tree.map(error, got, wanted)))


# The gradient.


def by_hand_cases():
    """(coupling, lambda, layers, anchor_every); by default three couplings."""
    for coupling, (scale, depth, every) in itertools.product(
        COUPLINGS, ((0.1, 4, 2), (0.1, 3, 1), (0.5, 6, 3), (1.0, 4, 4), (0.3, 1, 1))
    ):
        is_often = (scale, depth, every) == (0.1, 4, 2) and coupling in ("centred", "bdia", "meft3")
        yield pytest.param(coupling, scale, depth, every, marks=[pytest.mark.slow] * (not is_often))


@pytest.mark.checklist(26, 29)
@pytest.mark.parametrize(("coupling", "scale", "depth", "every"), list(by_hand_cases()))
def test_the_backward_pass_by_hand_is_the_one_of_autodiff(
    float64, case, fast_jit, coupling, scale, depth, every
):
    """And the frozen layers get no gradient."""
    arguments = case(coupling, scale, depth, every)
    out, got, of_layers = gradients(run, fast_jit)(*arguments)
    plain, wanted, _ = gradients(plainly, fast_jit)(*arguments)
    assert relative_error(out, plain) < 1e-12
    assert relative_error(got, wanted) < 1e-9
    assert all(np.any(leaf) for leaf in jax.tree.leaves(got))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_layers))


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


# Drift, and the anchors that bound it: 12 layers in float32 at lambda = 0.1.


@pytest.mark.checklist(28, 29)
@pytest.mark.parametrize(
    "coupling", ["meft1", *(pytest.param(c, marks=pytest.mark.slow) for c in ("meft2", "meft3"))]
)
def test_anchors_keep_a_float32_gradient_right_where_none_lose_it(case, fast_jit, coupling):
    errors = {}
    arguments = case(coupling, 0.1, 12, 1, dtype="float32")
    plain, wanted, _ = gradients(plainly, fast_jit)(*arguments)
    for every in (1, 12):
        arguments = case(coupling, 0.1, 12, every, dtype="float32")
        by_hand = gradients(run, fast_jit)
        out, got, _ = by_hand(*arguments)
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
    for depth, every in ((8, 8), (4, 1), (8, 2)):
        arguments = case(coupling, 0.1, depth, every, dtype="float32")
        anchors = depth // every
        assert kept_bytes(run, *arguments) == STREAMS * anchors + MASK


@pytest.mark.parametrize(
    "coupling",
    ["centred", *(pytest.param(x, marks=pytest.mark.slow) for x in COUPLINGS if x != "centred")],
)
def test_plain_autodiff_keeps_far_more_and_grows_with_depth(case, coupling):
    two, four, eight = (
        kept_bytes(run_plainly, *case(coupling, 0.1, depth, depth, dtype="float32"))
        for depth in (2, 4, 8)
    )
    assert eight - four == 2 * (four - two) > 8 * STREAMS


# The ends.


@every_coupling
def test_the_newest_stream_is_the_one_that_the_last_layer_changed_most(
    case, fast_jit, once, coupling
):
    net, adapters, layers, mask, signs, (state, _) = case(coupling, 0.1, 1, 1, dtype="float32")

    @fast_jit
    def one_layer(adapters, layers, signs):
        one, two, sign = jax.tree.map(lambda x: x[0], (adapters, layers, signs))
        return net.forward(jax.tree.map(jnp.zeros_like, one), two, mask, sign, (state, state))

    def ordinary():
        return fast_jit(lambda layers: backbone.run_layers(net.config, layers, state, mask))(layers)

    out = one_layer(adapters, layers, signs)
    newest, mean = (coupled.finish(net.coupling, end, out) for end in ("newest", "mean"))
    wanted = once("a layer of the backbone", ordinary)
    other = out[1 - net.coupling.newest]
    assert relative_error(newest, wanted) < 0.3 < relative_error(other, wanted)
    np.testing.assert_allclose(mean, (out[0] + out[1]) / 2, rtol=1e-6)


def test_streams_are_float32_where_the_states_are_bfloat16():
    x1, x2 = coupled.start(jnp.ones((2, 3, 4), jnp.bfloat16))
    assert x1.dtype == x2.dtype == jnp.float32
