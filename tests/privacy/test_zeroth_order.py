"""Slopes along random directions: clipped one by one, noised once, right on average.

Axes: B rows, n steps.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from memarc.privacy import noise, summation, zeroth_order
from memarc.privacy.clipping import Clipping
from memarc.privacy.mechanism import PrivacyConfig
from memarc.training import step
from tests import fast_compile

ROWS, WIDTH, HIDDEN, PROBE = 7, 3, 2, 1e-2
FROZEN = {"scale": 1.5}


def problem(dtype=np.float32):
    """Parameters, of which two leaves have one shape, and a batch."""
    normal = lambda *shape: rng.standard_normal(shape).astype(dtype)
    rng = np.random.default_rng(0)
    trainable = {"first": normal(WIDTH, HIDDEN), "last": normal(HIDDEN), "shift": normal(HIDDEN)}
    signs = np.where(np.arange(ROWS) % 3, 1, -1).astype(dtype)
    return trainable, {"x": normal(ROWS, WIDTH), "signs": signs, "weight": np.ones(ROWS, dtype)}


def precompute(frozen, batch):
    return {**batch, "x": frozen["scale"] * batch["x"]}


def loss_fn(trainable, frozen, batch):
    shift = jnp.broadcast_to(trainable["shift"], (*batch["x"].shape[:1], HIDDEN))
    logits = jnp.tanh(batch["x"] @ trainable["first"] + shift) @ trainable["last"]
    return batch["weight"] * jnp.logaddexp(0.0, -batch["signs"] * logits)


def coupled(trainable, frozen, batch):
    """A batch norm of sorts, which an engine that takes rows together would let through."""
    return loss_fn(trainable, frozen, {**batch, "x": batch["x"] - batch["x"].mean(0)[None]})


@functools.lru_cache
def compiled(loss, clipping):
    """``(number of a step, trainable, batch, mask) -> (sum of slopes, u)``."""
    settings = step.GradientSettings(clipping, zeroth_order.NAME, 3)  # Three, three and one row.
    accumulate = step.make_accumulate(loss, precompute, settings)

    def summed(number, trainable, batch, is_padding):
        directions = zeroth_order.Directions(jax.random.key(3), PROBE)
        line = zeroth_order.Line(trainable, directions, number)
        zero = summation.zero(zeroth_order.summed(line))
        total = accumulate(zero, line, FROZEN, batch, is_padding)
        return total.value, line.direction()

    return jax.jit(summed, compiler_options=fast_compile.options())


def summed(batch, padding=(), *, loss=loss_fn, clip_norm=1.0):
    """The sum of a batch in which some rows are padding."""
    mask = np.isin(np.arange(ROWS), padding)
    return float(compiled(loss, Clipping(clip_norm))(0, problem()[0], batch, mask)[0])


def with_row(batch, row, **values):
    """A copy of a batch, one row of which is another."""
    changed = {name: leaf.copy() for name, leaf in batch.items()}
    for name, value in values.items():
        changed[name][row] = value
    return changed


@pytest.mark.parametrize("rule", ["abadi", "automatic"])
@pytest.mark.checklist(9, 16, 19, 27, 48)
def test_the_sum_is_that_of_a_loop_written_by_hand(rule):
    with jax.enable_x64(True):
        trainable, batch = problem(np.float64)
        mask = np.arange(ROWS) == 4
        got, u = compiled(loss_fn, Clipping(0.3, rule))(2, trainable, batch, mask)
        u = jax.tree.map(np.asarray, u)

    def loss(row, distance):
        first, last, shift = (
            trainable[name] + distance * u[name] for name in ("first", "last", "shift")
        )
        logit = np.tanh(1.5 * batch["x"][row] @ first + shift) @ last
        return math.log1p(math.exp(-batch["signs"][row] * logit))

    slopes = [(loss(row, PROBE) - loss(row, -PROBE)) / (2 * PROBE) for row in range(ROWS)]
    factor = lambda s: min(1, 0.3 / abs(s)) if rule == "abadi" else 0.3 / (abs(s) + 0.01)
    wanted = sum(factor(s) * s for row, s in enumerate(slopes) if row != 4)
    np.testing.assert_allclose(float(got), wanted, rtol=2e-5)  # The factor's slack is 1e-5.
    assert min(map(abs, slopes)) < 0.3 < max(map(abs, slopes)), "both branches must be met"


@pytest.mark.checklist(8, 16, 35, 48)
@pytest.mark.parametrize("clip_norm", [0.1, 10.0])
@pytest.mark.parametrize("weight", [0.0, 1e-30, 1.0, -1e20, 1e38, math.inf, math.nan])
def test_one_row_moves_the_sum_by_at_most_the_clip_norm(weight, clip_norm):
    _, batch = problem()
    batch = with_row(batch, 4, weight=weight)
    with_it, without = (summed(batch, x, clip_norm=clip_norm) for x in ((), (4,)))
    assert abs(with_it - without) <= clip_norm * (1 + 1e-5)
    if weight == -1e20:
        assert abs(with_it - without) > 0.999 * clip_norm, "a bound that nothing meets"
    if not math.isfinite(weight):
        assert with_it == without
    assert without == summed(problem()[1], (4,), clip_norm=clip_norm) != 0.0


@pytest.mark.checklist(8, 48)
def test_a_row_with_one_infinite_loss_adds_exactly_zero():
    """Whichever way along the direction it lies."""
    trainable, batch = problem()
    line = zeroth_order.Line(trainable, zeroth_order.Directions(jax.random.key(3), PROBE), 0)
    moved = [line.moved(jnp.float32(distance)) for distance in (PROBE, -PROBE)]
    losses = np.stack([loss_fn(at, FROZEN, precompute(FROZEN, batch)) for at in moved])
    slopes = np.where(losses.min(0) > 1, losses[0] - losses[1], 0)  # No weight makes less infinite.
    assert slopes.min() < 0 < slopes.max()
    for row in slopes.argmin(), slopes.argmax():
        weight = np.float32(np.finfo(np.float32).max / np.sqrt(losses[0, row] * losses[1, row]))
        with np.errstate(over="ignore"):
            assert np.isinf(weight * losses[:, row]).sum() == 1
        bad = with_row(batch, row, weight=weight)
        assert summed(bad) == summed(bad, (row,)) != summed(batch)


@pytest.mark.checklist(23, 46)
@pytest.mark.parametrize("loss", [loss_fn, coupled])
def test_another_row_does_not_matter_even_to_a_loss_that_couples_rows(loss):
    _, batch = problem()
    others = tuple(row for row in range(ROWS) if row != 1)
    alone = summed(batch, others, loss=loss)
    assert alone == summed(with_row(batch, 0, x=np.float32([9, -7, 5])), others, loss=loss)
    if loss is loss_fn:
        assert alone != 0.0
    each = [summed(batch, np.delete(np.arange(ROWS), row), loss=loss) for row in range(ROWS)]
    np.testing.assert_allclose(summed(batch, loss=loss), sum(each), rtol=1e-5, atol=1e-6)


@pytest.mark.checklist(3, 9, 10, 41, 43, 48)
def test_noise_meets_the_one_number_and_the_step_lies_along_the_direction():
    """From a start of zeros, an optimizer that adds gradients gives the gradient itself."""
    steps, clip_norm, sigma, batch_size = 2000, 0.5, 0.7, 8
    key = jax.random.key(11)
    privatize = noise.privatize_sum(stddev=sigma * clip_norm, divisor=batch_size, key=key)
    optimizer = optax.identity()
    start = jax.tree.map(jnp.zeros_like, problem()[0])
    directions = zeroth_order.Directions(jax.random.key(3), PROBE)
    begun = step.init_state(start, privatize, optimizer, directions)
    update = step.make_update(privatize, optimizer)

    def gradient(number):
        noise_state = (begun.noise_state[0]._replace(num_updates=number), begun.noise_state[1])
        state = begun.replace(step=number, noise_state=noise_state)
        total = summation.add(summation.zero(begun.summed), jnp.float32(3.0))
        after, metrics = update(state, total)
        drawn = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, number), 0))
        return after.trainable, state.point.direction(), drawn, metrics

    given = jax.jit(jax.vmap(gradient))(jnp.arange(steps, dtype=jnp.int32))
    got, u, drawn, metrics = jax.tree.map(np.asarray, given)
    private = (3.0 + sigma * clip_norm * drawn) / batch_size
    flat = lambda tree: np.concatenate([x.reshape(steps, -1) for x in jax.tree.leaves(tree)], 1)
    got, u = flat(got), flat(u)  # [n, d]
    np.testing.assert_allclose(got, private[:, None] * u, rtol=1e-6)
    norms = np.linalg.norm(got, axis=1)
    np.testing.assert_allclose(metrics["noised_gradient_norm"], norms, rtol=1e-5)
    # What the noise is, as an attacker who knows u finds it: five standard errors each way.
    found = (got * u).sum(1) / (u * u).sum(1) * batch_size - 3.0
    assert abs(found.std() / (sigma * clip_norm) - 1) < 5 / math.sqrt(2 * steps)
    assert abs(found.mean()) < 5 * sigma * clip_norm / math.sqrt(steps)
    correlations = [np.corrcoef(found, along)[0, 1] for along in u.T]
    assert max(map(abs, correlations)) < 5 / math.sqrt(steps), "noise depends on the direction"


@pytest.mark.checklist(1, 3, 48)
def test_directions_differ_between_steps_and_leaves_and_are_standard_normal():
    trainable = {"a": jnp.zeros(40), "b": jnp.ones(40, jnp.bfloat16)}
    directions = zeroth_order.Directions(jax.random.key(3), PROBE)
    u = [
        zeroth_order.Line(trainable, directions, jnp.int32(number)).direction()
        for number in (0, 1, 2, 1)
    ]
    assert {leaf.dtype for tree in u for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
    values = [np.concatenate(jax.tree.leaves(tree)) for tree in u]
    assert np.array_equal(values[1], values[3])
    drawn = np.concatenate(values[:3])
    assert len(set(drawn.tolist())) == 240
    assert abs(drawn.std() - 1) < 5 / math.sqrt(480) and abs(drawn.mean()) < 5 / math.sqrt(240)
    moved = zeroth_order.Line(trainable, directions, jnp.int32(0)).moved(jnp.float32(0.5))
    np.testing.assert_allclose(moved["a"], 0.5 * u[0]["a"], rtol=1e-6)
    assert moved["b"].dtype == jnp.bfloat16


def test_over_directions_the_mean_step_is_the_gradient():
    """Of a quadratic loss the central difference is the slope itself, whatever the distance."""
    steps = 20_000
    with jax.enable_x64(True):
        theta = {"w": np.array([0.3, -1.2, 0.7]), "b": np.array(0.4)}
        batch = {"x": np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]), "y": np.array([1.0, -2.0])}

        def loss(trainable, frozen, batch):
            return (batch["x"] @ trainable["w"] + trainable["b"] - batch["y"]) ** 2

        settings = step.GradientSettings(Clipping(1e6), zeroth_order.NAME, 2)
        accumulate = step.make_accumulate(loss, lambda frozen, batch: batch, settings)
        directions = zeroth_order.Directions(jax.random.key(5), 0.5)

        def one(number):
            line = zeroth_order.Line(theta, directions, number)
            zero = summation.zero(zeroth_order.summed(line))
            total = accumulate(zero, line, {}, batch, np.zeros(2, bool)).value
            return zeroth_order.lifted(total, line), line.direction(), total

        given = jax.jit(jax.vmap(one))(np.arange(steps, dtype=np.int32))
        flat = lambda tree: np.concatenate([np.reshape(x, (steps, -1)) for x in tree.values()], 1)
        got, u, slopes = flat(given[0]), flat(given[1]), np.asarray(given[2])
    residual = batch["x"] @ theta["w"] + theta["b"] - batch["y"]
    # Leaves come in the order of their names: b, then w.
    gradient = np.concatenate([[2 * residual.sum()], 2 * residual @ batch["x"]])
    np.testing.assert_allclose(slopes, u @ gradient, rtol=1e-6, atol=1e-6)
    # The variance of (g.u) u_j is |g|^2 + g_j^2; five standard errors of a mean of n.
    error = np.sqrt((gradient @ gradient + gradient**2) / steps)
    assert np.all(np.abs(got.mean(0) - gradient) < 5 * error)
    assert np.max(np.abs(gradient) / error) > 20, "a gradient of zero would pass as well"


def test_a_short_training_without_noise_lowers_the_loss():
    trainable, batch = problem()
    privatize = noise.privatize_sum(stddev=0.0, divisor=ROWS, key=jax.random.key(0))
    optimizer = optax.sgd(0.1)
    settings = step.GradientSettings(Clipping(5.0), zeroth_order.NAME, ROWS)
    private_step = step.make_private_step(
        step.make_accumulate(loss_fn, precompute, settings),
        step.make_update(privatize, optimizer),
        summation.zero,
    )
    directions = zeroth_order.Directions(jax.random.key(1), 1e-3)
    state = step.init_state(trainable, privatize, optimizer, directions)

    @functools.partial(jax.jit, compiler_options=fast_compile.options())
    def trained(state):
        mask = jnp.zeros(ROWS, bool)
        return jax.lax.scan(
            lambda state, _: (private_step(state, FROZEN, batch, mask)[0], None), state, None, 200
        )[0]

    after = trained(state)
    assert int(after.step) == 200
    mean = lambda at: float(loss_fn(at, FROZEN, precompute(FROZEN, batch)).mean())
    assert mean(after.trainable) < 0.5 * mean(trainable)


def test_bad_choices_are_refused_by_name():
    promise = functools.partial(PrivacyConfig, epsilon=8.0, delta=1e-5)
    for probe in (0.0, -1e-3, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"probe is {probe}; give a finite number above 0"):
            promise(probe=probe)
        with pytest.raises(ValueError, match="probe is"):
            zeroth_order.Directions(jax.random.key(0), probe)
    with pytest.raises(ValueError, match=r"clipping_scope is 'per_layer'; a slope is one number"):
        promise(engine="zeroth_order", clipping_scope="per_layer")
    assert promise().directions(jax.random.key(0)) is None
    assert promise(engine="zeroth_order", probe=0.5).directions(jax.random.key(0)).probe == 0.5


@pytest.mark.parametrize(("engine", "told"), [("zeroth_order", "without"), ("vmap", "with")])
def test_an_engine_and_a_state_that_do_not_go_together_are_refused(engine, told):
    """Else gradients could be taken under the name of slopes, or the other way round."""
    trainable, batch = problem()
    privatize = noise.privatize_sum(stddev=0.0, divisor=ROWS, key=jax.random.key(0))
    directions = zeroth_order.Directions(jax.random.key(1), PROBE) if told == "with" else None
    state = step.init_state(trainable, privatize, optax.identity(), directions)
    settings = step.GradientSettings(Clipping(1.0), engine, ROWS)
    accumulate = step.make_accumulate(loss_fn, precompute, settings)
    with pytest.raises(ValueError, match=f"parameters come {told} directions"):
        zero = summation.zero(state.summed)
        accumulate(zero, state.point, FROZEN, batch, np.zeros(ROWS, bool))
