"""Claims about taps: norms by hand, refusal of shared parameters, and rounding kept safe."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.ops import uses as plan
from memarc.ops.linear import DENSE, ROWS, add_trailing, linear, take_rows
from memarc.ops.precision import bfloat16_parts
from memarc.ops.taps import refilled, squared_norms

B, T, WIDTH = 3, 5, 4


def squares(x):
    return jnp.sum(x * x, axis=tuple(range(1, x.ndim)))


def places(loss, trainable, batch=None):
    return plan.find_places(loss, trainable, {}, batch or {"x": jnp.zeros((B, T, WIDTH))})


def test_repeated_tokens_add_up_before_they_are_squared():
    # Row 0 reads row 7 of the table twice, so its gradient there is g_0 + g_1.
    g = jnp.array([[[1.0, 2.0], [3.0, -1.0]], [[1.0, 2.0], [3.0, -1.0]]])
    ids = jnp.array([[7, 7], [7, 2]])
    got = squared_norms(ROWS, jnp.zeros((9, 2)), (ids,), g)
    np.testing.assert_allclose(got, [4.0**2 + 1.0**2, 1.0 + 4.0 + 9.0 + 1.0], rtol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (40, 30)])  # Instantiated; ghost.
def test_a_dense_norm_is_that_of_the_sum_of_outer_products(inputs, outputs):
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((B, T, n)).astype(np.float32) for n in (inputs, outputs))
    is_ghost = DENSE.prefers_ghost((inputs, outputs), (x.shape,))
    assert is_ghost == (inputs == 40)
    got = squared_norms(DENSE, jnp.zeros((inputs, outputs)), (jnp.asarray(x),), jnp.asarray(g))
    wide = np.einsum("bti,bto->bio", x.astype(np.float64), g.astype(np.float64))
    np.testing.assert_allclose(got, np.square(wide).sum((1, 2)), rtol=1e-4)


@pytest.mark.checklist(16)
def test_a_norm_that_cancels_never_comes_out_too_small():
    """Gradients of tokens that cancel but for a millionth part: rounding could hide the rest."""
    rng = np.random.default_rng(1)
    x = np.repeat(rng.standard_normal((200, 1, 64)), 2, axis=1).astype(np.float32)
    g = np.repeat(rng.standard_normal((200, 1, 64)), 2, axis=1).astype(np.float32)
    g[:, 1] *= np.float32(-1 + 1e-5)
    true = np.square(np.einsum("bti,bto->bio", *(v.astype(np.float64) for v in (x, g))))
    assert DENSE.prefers_ghost((64, 64), (x.shape,))
    got = squared_norms(DENSE, jnp.zeros((64, 64)), (jnp.asarray(x),), jnp.asarray(g))
    assert np.all(np.asarray(got) >= true.sum((1, 2)))


def test_parts_add_up_to_every_bit_of_a_float32():
    rng = np.random.default_rng(2)
    x = (rng.standard_normal(999) * 10.0 ** rng.integers(-25, 30, 999)).astype(np.float32)
    parts = jax.jit(bfloat16_parts)(x)
    assert parts.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(parts, np.float64).sum(0), x)
    assert np.asarray(parts[1:]).any(1).all()  # A compiler that drops casts would leave zeros.


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 40), (40, 3)])  # Either is the smaller.
def test_a_clipped_sum_of_bfloat16_is_rounded_as_float32_is(inputs, outputs):
    rng = np.random.default_rng(3)
    x, g = (jnp.asarray(rng.standard_normal((B, T, n)), jnp.bfloat16) for n in (inputs, outputs))
    factors = jnp.asarray(rng.uniform(0.1, 1.0, B), jnp.float32)
    kernel = jnp.zeros((inputs, outputs))
    got = jax.jit(DENSE.weighted_sum)(kernel, (x,), g, factors)
    exact = [np.asarray(y, np.float64) for y in (x, g, factors)]
    wanted = np.einsum("bti,bto,b->io", *exact)
    largest = np.abs(wanted).max()
    assert got.dtype == jnp.float32 and np.abs(got - wanted).max() < 1e-6 * largest
    rounded = np.asarray((g.astype(jnp.float32) * factors[:, None, None]).astype(jnp.bfloat16))
    once = np.einsum("bti,bto->io", exact[0], rounded.astype(np.float64))
    assert np.abs(once - wanted).max() > 1e-4 * largest  # The control: scaled and rounded once.


@pytest.mark.checklist(25)
def test_a_parameter_used_twice_is_refused_by_name():
    def tied(trainable, frozen, batch):
        del frozen
        return squares(linear(linear(batch["x"], trainable["w"]), trainable["w"]))

    with pytest.raises(ValueError, match="parameter w in 2 places"):
        places(tied, {"w": jnp.zeros((WIDTH, WIDTH))})


def test_one_parameter_for_every_layer_of_a_scan_is_refused():
    def looped(trainable, frozen, batch):
        del frozen
        step = lambda x, _: (add_trailing(x, trainable["b"]), None)
        return squares(jax.lax.scan(step, batch["x"], None, length=3)[0])

    with pytest.raises(ValueError, match="parameter b in 3 places"):
        places(looped, {"b": jnp.zeros((WIDTH,))})


def spread(parameter, copies):
    """A parameter copied along a new first axis, as a tree: taps must not hide that."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (copies, *x.shape)), parameter)


def copied_to_layers(trainable, x):
    return jax.lax.scan(lambda x, w: (linear(x, w), None), x, spread(trainable["w"], 4))[0]


def left_a_program(trainable, x):
    w = jax.jit(lambda w: w)(trainable["w"])
    for _ in range(3):
        x = linear(x, w)
    return x


def left_layer_by_layer(trainable, x):
    _, layers = jax.lax.scan(lambda c, w: (c, w), 0, spread(trainable["w"], 2))
    return linear(x, jax.tree.map(lambda w: w[0], layers))


@pytest.mark.checklist(16)
@pytest.mark.parametrize("network", [copied_to_layers, left_a_program, left_layer_by_layer])
def test_a_parameter_used_more_than_once_in_disguise_is_refused(network):
    def loss(trainable, frozen, batch):
        del frozen
        return squares(network(trainable, batch["x"]))

    with pytest.raises(ValueError, match=r"parameter w in [234] places"):
        places(loss, {"w": jnp.zeros((WIDTH, WIDTH))})


def test_a_parameter_that_leaves_a_program_and_is_used_once_is_one_place():
    def loss(trainable, frozen, batch):
        del frozen
        w = jax.jit(lambda w: jax.tree.map(lambda x: x.reshape(WIDTH, WIDTH), w))(trainable["w"])
        return squares(linear(batch["x"], w))

    (place,) = places(loss, {"w": jnp.zeros((1, WIDTH, WIDTH))})
    assert place.use is not None


def test_a_pull_back_is_refilled_only_if_it_holds_every_tap_once():
    def function(x, taps):
        return jnp.sum(x * jax.lax.stop_gradient(taps[0])) + jnp.sum(x * 2.0)

    taps = [jnp.ones(3)]
    _, pullback = jax.vjp(function, jnp.ones(3), taps)
    again = refilled(pullback, taps, [jnp.full(3, 5.0)])
    np.testing.assert_array_equal(again(1.0)[0], jnp.full(3, 7.0))
    np.testing.assert_array_equal(pullback(1.0)[0], jnp.full(3, 3.0))  # It stays as it was.
    assert refilled(pullback, [jnp.ones(3)], [jnp.full(3, 5.0)]) is None


def test_stacked_parameters_are_used_once_a_layer():
    def stacked(trainable, frozen, batch):
        del frozen
        step = lambda x, b: (add_trailing(x, b), None)
        return squares(
            jax.checkpoint(lambda x: jax.lax.scan(step, x, trainable["b"])[0])(batch["x"])
        )

    (place,) = places(stacked, {"b": jnp.zeros((3, WIDTH))})
    assert place.stack == (3,) and str(place) == "b [3, 4]: add, instantiated"


def test_a_loss_that_uses_a_bare_parameter_is_told_what_to_do():
    def bare(trainable, frozen, batch):
        del frozen
        return squares(batch["x"] @ trainable["w"])

    with pytest.raises(ValueError, match=r"does not take taps.*Use engine 'vmap'"):
        places(bare, {"w": jnp.zeros((WIDTH, WIDTH))})


def test_an_embedding_is_one_place_and_an_unused_parameter_none():
    def loss(trainable, frozen, batch):
        del frozen
        return squares(take_rows(trainable["table"], batch["ids"]))

    trainable = {"idle": jnp.zeros(2), "table": jnp.zeros((9, 2))}
    idle, table = places(loss, trainable, {"ids": jnp.zeros((B, 2), jnp.int32)})
    assert idle.use is None and str(table) == "table [9, 2]: rows, ghost norm"
