"""Claims about exact reversal: streams come back bit for bit, gradients are those of autodiff."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.measure import reversibility as reversal
from memarc.models import backbone, coupled, exact, exact_range
from memarc.models.adapter import init_stack
from memarc.models.coupled import Network
from memarc.models.couplings import COUPLINGS
from memarc.models.reversible import Reversible, draw_signs
from tests import fast_compile

DEPTH = 12
UNIT = np.full(24, 2.0**-16, np.float32)


@functools.lru_cache
def problem(sizes, weights, randomise, coupling, scale, dtype="float32"):
    """(network, adapters, layers, mask, signs, hidden) of a deep stack, adapters that matter."""
    cfg = sizes(dtype=dtype, layers=DEPTH)
    shapes = jax.eval_shape(lambda: init_stack(cfg, 5, DEPTH, jax.random.key(0)))
    adapters = randomise(dict.fromkeys(COUPLINGS[coupling].branches, shapes), seed=4, scale=0.1)
    layers = weights(cfg)["layers"]
    mask = jnp.asarray(np.arange(7) < np.array([[7], [5], [1]]))
    hidden = jnp.asarray(np.random.default_rng(6).standard_normal((3, 7, 24), np.float32))
    signs = None
    if COUPLINGS[coupling].signed:
        signs = draw_signs(jax.random.bits(jax.random.key(7), (3, 2)), DEPTH)
    return Network(cfg, COUPLINGS[coupling], scale, 4), adapters, layers, mask, signs, hidden


fully = functools.partial(jax.jit, compiler_options=fast_compile.FULLY)

SCALES = {"meft1": 0.125, "centred": 0.0625, "meft2": 0.25, "meft3": 0.5, "bdia": 0.5}
# One of two branches and one of signs; the test of the measure is of the default in float32.
OFTEN = (("meft3", "float32"), ("bdia", "bfloat16"))
ROUNDINGS = [
    pytest.param(
        *(coupling, scale, dtype),
        marks=[pytest.mark.slow] * ((coupling, dtype) not in OFTEN),
    )
    for coupling, scale in SCALES.items()
    for dtype in ("float32", "bfloat16")
]


NOTHING_LOST = {"mismatched_values": 0, "max_stream_error": 0.0, "saturated_values": 0}


def loss(streams):
    one, two = streams
    return jnp.sum(jnp.sin(one) + jnp.cos(two))


def plain_gradient(jit, net, adapters, layers, mask, signs, hidden):
    """The gradients of adapters and of the first state, by autodiff in floats."""

    def plainly(adapters, hidden):
        return loss(coupled.run_plainly(net, adapters, layers, mask, signs, (hidden, hidden)))

    return jit(jax.grad(plainly, argnums=(0, 1)))(adapters, hidden)


def assert_layers_agree(got, wanted):
    """The gradient of each layer's adapters."""
    for layer in range(DEPTH):
        a, b = (
            np.concatenate([np.ravel(x[layer]) for x in jax.tree.leaves(tree)])
            for tree in (got, wanted)
        )
        assert np.linalg.norm(a - b) <= 2e-3 * np.linalg.norm(b), layer


@pytest.mark.parametrize(("coupling", "scale", "dtype"), ROUNDINGS)
def test_every_stream_value_comes_back_in_the_program_that_differentiates(
    sizes, weights, randomise, fast_jit, monkeypatch, coupling, scale, dtype
):
    """With all of the compiler's optimisations: they are what could round otherwise."""
    *network, hidden = problem(sizes, weights, randomise, coupling, scale, dtype)
    monkeypatch.setattr(reversal, "_loss", lambda unit, streams: loss(streams))
    uneven = np.float32(2.0 ** (-10.0 - np.arange(24) % 9))  # Of every channel.
    probe = fully(reversal.exact_probe, static_argnums=0)
    for unit in (uneven, UNIT):
        found, gradient = probe(*network, unit, hidden)
        assert {name: value.item() for name, value in found.items()} == NOTHING_LOST
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))
    if dtype == "float32":
        assert_layers_agree(gradient, plain_gradient(fast_jit, *network, hidden)[0])


def test_the_measure_tells_exact_from_float(sizes, weights, fast_jit, monkeypatch):
    """Of the default coupling in float32, whose gradients it compares layer by layer."""
    cfg = sizes(dtype="float32", layers=DEPTH)
    net = Network(cfg, COUPLINGS["centred"], SCALES["centred"], 2)
    params = jax.tree.map(lambda x: x.astype(jnp.float32), weights(cfg))
    monkeypatch.setattr(reversal, "_ADAPTER_SCALE", 0.1)  # Adapters that matter.

    def jit(function, **options):
        """Of the probe alone it matters how it is compiled."""
        return (fully if function is reversal.exact_probe else fast_jit)(function, **options)

    monkeypatch.setattr(reversal, "jax", types.SimpleNamespace(**{**vars(jax), "jit": jit}))
    found = reversal.measure(net, params, "exact", (2, 5))
    assert {name: found[name] for name in NOTHING_LOST} == NOTHING_LOST
    assert len(found["gradient_errors"]) == DEPTH and max(found["gradient_errors"]) <= 1e-5
    assert max(found["gradient_errors_float64"]) <= 1e-5  # Also of the network in wider floats.
    assert max(found["autodiff_errors_float64"]) > 0.0
    uneven = dataclasses.replace(net, scale=0.01)  # No power of two: floats need none.
    # Streams alone are controlled: any gradient does.
    monkeypatch.setattr(reversal, "_plain_gradient", lambda net, is_rounded, adapters, *_: adapters)
    control = reversal.measure(uneven, params, "float", (2, 5))
    assert control["mismatched_values"] > 0 and control["max_stream_error"] > 1e-3


def test_the_float_inverse_does_not_come_back_at_this_depth(sizes, weights, randomise, fast_jit):
    """The control: what exact arithmetic is for."""
    net, adapters, layers, mask, signs, hidden = problem(sizes, weights, randomise, "meft1", 0.125)
    run = fast_jit(coupled.run_plainly, static_argnums=0)
    back = fast_jit(lambda *given: coupled.layer_backward(net, *given)[0])
    streams = run(net, adapters, layers, mask, signs, (hidden, hidden))
    for i in reversed(range(DEPTH)):
        one = jax.tree.map(lambda x, i=i: x[i], (adapters, layers))
        streams = back(*one, mask, None, streams, streams)
    assert np.abs(streams[0] - hidden).max() > 0.1


# By default of the coupling that draws signs; of others in the two tests above.
@pytest.mark.parametrize(
    "coupling",
    [pytest.param(x, marks=[pytest.mark.slow] * (x != "bdia")) for x in SCALES],
)
def test_gradients_of_every_layer_are_those_of_autodiff(
    sizes, weights, randomise, fast_jit, coupling
):
    network = problem(sizes, weights, randomise, coupling, 0.25)
    net, adapters, layers, mask, signs, hidden = network

    def exactly(adapters, hidden):
        return loss(exact.run(net, adapters, layers, mask, signs, UNIT, hidden))

    # Compiled as training is: with fast_jit's options two of XLA's loops round otherwise.
    got, into = fully(jax.grad(exactly, argnums=(0, 1)))(adapters, hidden)
    wanted, wanted_into = plain_gradient(fast_jit, *network)
    assert_layers_agree(got, wanted)
    np.testing.assert_allclose(into, wanted_into, rtol=1e-2, atol=1e-2)


@pytest.mark.checklist(18)
def test_a_row_that_leaves_the_range_is_not_a_number_and_the_others_are_as_before(
    sizes, weights, randomise, fast_jit
):
    net, adapters, layers, mask, signs, hidden = problem(sizes, weights, randomise, "meft1", 0.25)
    run = fast_jit(exact.run, static_argnums=0)
    before = run(net, adapters, layers, mask, signs, UNIT, hidden)
    after = run(net, adapters, layers, mask, signs, UNIT, hidden.at[1, 0, 0].set(2.0**15))
    for old, new in zip(before, after, strict=True):
        assert np.all(np.isnan(new[1]))
        np.testing.assert_array_equal(new[::2], old[::2])


def test_the_check_of_public_input_names_the_layer_and_the_magnitude(sizes, weights, randomise):
    net, adapters, layers, mask, signs, hidden = problem(sizes, weights, randomise, "meft1", 0.25)
    exact_range.check_range(net, adapters, layers, mask, signs, UNIT, hidden)
    with pytest.raises(
        ValueError, match=r"The start leaves .* reaches 2\.01e\+04, the widest channel"
    ):
        exact_range.check_range(
            net, adapters, layers, mask, signs, UNIT, jnp.full_like(hidden, 20100.0)
        )
    bias = layers["feed_forward"]["norm"]["bias"].at[2].add(3e4)
    feed = layers["feed_forward"]
    moved = {**layers, "feed_forward": {**feed, "norm": {**feed["norm"], "bias": bias}}}
    with pytest.raises(ValueError, match=r"Layer 3 of the 12 reversible .* 3e\+04.*'centred'"):
        exact_range.check_range(net, adapters, moved, mask, signs, UNIT, hidden)


def test_units_follow_the_largest_value_of_every_channel(sizes, weights, randomise, fast_jit):
    """A massive channel gets range, the others keep fine steps; none is below the median's."""
    net, adapters, layers, mask, signs, hidden = problem(sizes, weights, randomise, "centred", 0.25)
    hidden = hidden.at[:, 0, 5].set(3e4)  # At the first token, as in real networks.
    units = fast_jit(exact_range.units, static_argnums=0)(
        net, adapters, layers, mask, signs, hidden
    )
    reach = np.asarray(units) * 2.0**30
    assert 16 * 3e4 <= reach[5] < 32 * 3e4
    others = np.delete(reach, 5)
    assert np.array_equal(np.log2(reach), np.round(np.log2(reach)))  # Powers of two.
    assert others.max() < 1e4 and others.min() >= np.median(others) / 2
    exact_range.check_range(net, adapters, layers, mask, signs, units, hidden)
    with pytest.raises(ValueError, match="leaves the fixed-point range"):
        exact_range.check_range(net, adapters, layers, mask, signs, UNIT, hidden)


def test_without_signs_bdia_is_the_ordinary_network_and_with_them_its_mean_is(
    sizes, weights, randomise, fast_jit
):
    net, adapters, layers, mask, _, hidden = problem(sizes, weights, randomise, "bdia", 0.5)
    adapters = jax.tree.map(jnp.zeros_like, adapters)
    wanted = fast_jit(lambda hidden: backbone.run_layers(net.config, layers, hidden, mask))(hidden)
    run = fast_jit(
        lambda signs: coupled.run_plainly(net, adapters, layers, mask, signs, (hidden, hidden))[1]
    )
    ordinary, last = run(jnp.zeros((DEPTH, 3, 1, 1))), jnp.zeros((DEPTH, 3, 1, 1)).at[-1].set(1.0)
    np.testing.assert_allclose(ordinary, wanted, rtol=1e-5, atol=1e-5)
    minus, plus = run(-last), run(last)
    np.testing.assert_allclose((minus + plus) / 2, ordinary, rtol=1e-5, atol=1e-5)
    assert np.abs(minus - ordinary).max() > 0.1


def test_signs_are_fair_and_differ_by_row_and_layer():
    signs = draw_signs(jax.random.bits(jax.random.key(0), (200, 2)), 31)
    assert signs.shape == (31, 200, 1, 1) and set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / np.sqrt(signs.size)
    correlation = np.corrcoef(signs[..., 0, 0]) - np.eye(31)
    assert np.abs(correlation).max() < 5 / np.sqrt(200)


def test_lambda_must_be_a_power_of_two(sizes):
    with pytest.raises(ValueError, match=r"scale \(lambda\) is 0.1; .*0.125.*'float'"):
        Reversible(sizes(), arithmetic="exact", scale=0.1)
    assert exact.exponent(0.125) == 3
    assert dataclasses.replace(Reversible(sizes()), arithmetic="exact", scale=0.125)


def test_nothing_but_bits_and_last_streams_grows_with_depth(sizes, weights, randomise):
    net, adapters, layers, mask, signs, hidden = problem(sizes, weights, randomise, "meft1", 0.0625)
    _, (kept, _) = jax.eval_shape(
        lambda a: exact._run_forward(net, a, layers, mask, signs, UNIT, hidden), adapters
    )
    bits = jax.tree.leaves(kept.bits)
    assert [x.shape for x in bits] == [(DEPTH, 3, 7, 12)]  # Two values of four bits a byte.
    assert [x.shape for x in kept.last] == [(3, 7, 24)] * 2
    assert backbone.token_mask({"attention_mask": mask}).shape == (3, 7)
