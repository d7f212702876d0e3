"""The chunked loss of tokens is the plain one, and so are all its gradients and norms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.ops.token_loss import How, _op, token_loss

B, N, D, V = 3, 7, 5, 11


def plain(table, states, targets, weights, smoothing, cap=0.0):
    """The definition, written out: all logits at once."""
    logits = jnp.einsum("bnd,vd->bnv", states, table)
    log_p = jax.nn.log_softmax(cap * jnp.tanh(logits / cap) if cap else logits)
    wanted = (1 - smoothing) * jax.nn.one_hot(targets, table.shape[0]) + smoothing / table.shape[0]
    return -jnp.einsum("bnv,bnv,bn->b", log_p, wanted, weights)


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        targets = jnp.asarray(rng.integers(0, V, (B, N), np.int32))
        weights = jnp.asarray(rng.random((B, N)) * (rng.random((B, N)) < 0.6))
        table, states = rng.standard_normal((V, D)), rng.standard_normal((B, N, D))
        yield jnp.asarray(table), jnp.asarray(states), targets, weights


def assert_close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(loss, table, states, cotangent):
    """Losses of rows, and the gradients of table and states."""
    losses, pull = jax.vjp(loss, table, states)
    return losses, pull(cotangent)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50])
def test_losses_and_gradients_are_those_of_all_logits_at_once(inputs, chunk, smoothing):
    table, states, targets, weights = inputs

    def chunked(table, states):
        return token_loss(table, states, targets, weights, chunk=chunk, smoothing=smoothing)

    def at_once(table, states):
        return plain(table, states, targets, weights, smoothing)

    cotangent = jnp.arange(1.0, B + 1)
    found = [with_gradients(loss, table, states, cotangent) for loss in (chunked, at_once)]
    jax.tree.map(assert_close, *found)


def test_one_token_of_two_words_by_hand():
    states, table = jnp.array([[[2.0]]]), jnp.array([[0.0], [1.0]])  # Logits 0 and 2.
    given = (states, jnp.array([[1]], jnp.int32), jnp.array([[0.5]]))
    losses = token_loss(table, *given, chunk=4, smoothing=0.0)
    np.testing.assert_allclose(losses, 0.5 * np.log(1 + np.exp(-2.0)), rtol=1e-6)
    smoothed = token_loss(table, *given, chunk=4, smoothing=0.2)  # 0.9 on the target, 0.1 beside.
    by_hand = 0.9 * np.log(1 + np.exp(-2.0)) + 0.1 * np.log(1 + np.exp(2.0))
    np.testing.assert_allclose(smoothed, 0.5 * by_hand, rtol=1e-6)


@pytest.mark.parametrize(
    ("chunk", "smoothing", "cap"),
    [(1, 0.0, 0.0), (3, 0.3, 0.0), (50, 0.0, 0.0), (1, 0.3, 1.5), (3, 0.0, 1.5), (50, 0.3, 1.5)],
)
def test_norms_without_gradients_and_weighted_sums_are_those_of_gradients(
    inputs, chunk, smoothing, cap
):
    table, *rest = inputs
    g, factors = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, 0.0, 1.0])

    def one(states, targets, weights, g):
        row = (states[None], targets[None], weights[None])
        return jax.grad(lambda t: g * plain(t, *row, smoothing, cap)[0])(table)

    def found(op):
        given = (table, tuple(rest), g)
        return op.instantiate(*given), op.weighted_sum(*given, factors), op.ghost(*given)

    gradients = jax.jit(jax.vmap(one))(*rest, g)
    wanted = (gradients, np.tensordot(factors, gradients, 1), np.sum(gradients**2, (1, 2)))
    got = jax.jit(found, static_argnums=0)(_op(How(chunk, smoothing, cap)))
    jax.tree.map(assert_close, got, wanted)


def test_rows_of_one_token_predict_nothing(inputs):
    table, *rest = inputs
    none = tuple(x[:, :0] for x in rest)
    np.testing.assert_array_equal(token_loss(table, *none, chunk=4, smoothing=0.1), np.zeros(B))
    op, g = _op(How(4, 0.1, 0.0)), jnp.ones(B)
    np.testing.assert_array_equal(op.ghost(table, none, g), np.zeros(B))
    np.testing.assert_array_equal(op.weighted_sum(table, none, g, g), np.zeros((V, D)))


@pytest.mark.checklist(6)
def test_a_sum_over_rows_of_bfloat16_states_is_not_rounded_to_bfloat16():
    """Many alike rows: leaving one out moves the sum by its gradient, not by a rounding of all."""
    rng = np.random.default_rng(1)
    rows = 256
    table = jnp.asarray(rng.standard_normal((V, D)), jnp.float32)
    one = jnp.asarray(rng.standard_normal((1, N, D)), jnp.bfloat16)
    states = jnp.broadcast_to(one, (rows, N, D))
    targets = jnp.broadcast_to(jnp.asarray(rng.integers(0, V, (1, N)), jnp.int32), (rows, N))
    given = (states, targets, jnp.ones((rows, N), jnp.float32))
    op, g, everyone = _op(How(4, 0.0, 0.0)), jnp.ones(rows), jnp.ones(rows)
    whole = op.weighted_sum(table, given, g, everyone)
    rest = op.weighted_sum(table, given, g, everyone.at[0].set(0.0))
    gradient = op.instantiate(table, tuple(x[:1] for x in given), g[:1])[0]
    assert whole.dtype == gradient.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(whole - rest), jnp.linalg.norm(gradient), rtol=1e-3)
    np.testing.assert_allclose(
        op.ghost(table, tuple(x[:1] for x in given), g[:1])[0], jnp.sum(gradient**2), rtol=1e-3
    )


def test_axes_between_batch_and_width_are_all_tokens(inputs):
    table, states, targets, weights = inputs
    folded = [x[:, :6].reshape(B, 2, 3, *x.shape[2:]) for x in (states, targets, weights)]
    got = token_loss(table, *folded, chunk=4, smoothing=0.0)
    assert_close(got, plain(table, states[:, :6], targets[:, :6], weights[:, :6], 0.0))


def test_memory_is_of_a_chunk_and_not_of_all_tokens():
    """Compiled peaks of loss and gradient: logits of all tokens would be 16 times a chunk's."""
    rows, width, vocabulary, chunk = 2, 8, 4096, 16
    peaks = []
    for tokens in (16 * chunk, 64 * chunk):
        shapes = ((vocabulary, width), (rows, tokens, width), (rows, tokens), (rows, tokens))
        types = (jnp.float32, jnp.float32, jnp.int32, jnp.float32)
        given = [jax.ShapeDtypeStruct(s, t) for s, t in zip(shapes, types, strict=True)]

        def loss(table, states, targets, weights):
            return token_loss(table, states, targets, weights, chunk=chunk, smoothing=0.0).sum()

        compiled = jax.jit(jax.grad(loss, argnums=1)).lower(*given).compile()
        peaks.append(compiled.memory_analysis().temp_size_in_bytes)
    logits_of_a_chunk = rows * chunk * vocabulary * 4
    assert all(peak < 4 * logits_of_a_chunk for peak in peaks), peaks
    assert peaks[1] < 1.5 * peaks[0]
