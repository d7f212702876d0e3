"""Record and replay: on a neighbour, with all noised outputs frozen, nothing else may differ.

The whole step of the project runs on D while a recorder stands where the noise is added; it then
runs on a neighbour, gets the recorded outputs back, and must end with the same bits, the same
number of noised releases, and inputs to them that differ by no more than the declared sensitivity.
A check that could not fail would be worth nothing, so broken mechanisms must be caught by it.

Source: the method of dp-recorder, arXiv:2602.17454.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import io_callback

from memarc.models.build import build
from memarc.models.head import HeadConfig
from memarc.models.methods import METHODS
from memarc.privacy import noise, summation
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import ENGINES, clipped_grad_sum
from memarc.training import step
from tests import fast_compile

SENSITIVITY, STDDEV, DIVISOR = 0.5, 0.7, 4
CLIPPING = Clipping(SENSITIVITY, "abadi")


class Recorder:
    """Stands where noise is added: notes what comes in, and gives out what was recorded."""

    def __init__(self, recorded: list[Any] | None = None):
        self.recorded, self.given, self.returned = recorded, [], []

    def add_noise(self, value):
        """The noised value, or in a replay the one that was recorded in its place."""
        self.given.append(jax.tree.map(np.asarray, value))
        if self.recorded is not None:
            if len(self.returned) < len(self.recorded):
                value = self.recorded[len(self.returned)]
        else:
            rng = np.random.default_rng(len(self.given))
            noised = lambda x: np.float32(x + STDDEV * rng.standard_normal(x.shape))
            value = jax.tree.map(noised, self.given[-1])
        self.returned.append(value)
        return value


class Stand:
    """A place for one recorder after the other, within one compiled update.

    Attributes:
      recorder: The one that is called now.
    """

    def __init__(self):
        self.recorder: Recorder | None = None

    def transformation(self) -> optax.GradientTransformation:
        """In place of ``noise.add_gaussian_noise``."""

        def call(total, lost):
            both = jax.tree.map(lambda a, b: np.float64(a) + b, total, lost)  # Noise meets both.
            return jax.tree.map(np.float32, self.recorder.add_noise(both))

        def add_noise(updates, params):
            del params
            return io_callback(call, jax.eval_shape(lambda: updates.value), *updates, ordered=True)

        return optax.stateless(add_noise)


STAND = Stand()
OPTIMIZER = optax.adamw(0.1)
PRIVATIZE = optax.chain(STAND.transformation(), noise.divide_by(DIVISOR))


@functools.lru_cache
def compiled_parts():
    """How the project's step begins and ends, with a stand where its noise is, for all tests."""

    def start(trainable):
        return step.init_state(trainable, PRIVATIZE, OPTIMIZER), summation.zero(trainable)

    update = step.make_update(PRIVATIZE, OPTIMIZER)
    return [jax.jit(part, compiler_options=fast_compile.options()) for part in (start, update)]


Run = Callable[[dict, Recorder], Any]
"""``(rows of a draw, recorder) -> everything that leaves the step``."""


def distance(first, second) -> float:
    """The L2 distance of two trees in host memory."""
    squares = jax.tree.map(lambda a, b: np.sum(np.square(np.float64(a) - b)), first, second)
    return float(np.sqrt(sum(jax.tree.leaves(squares))))


def violations(run: Run, rows, neighbour) -> set[str]:
    """What a step does on two neighbouring draws that it must not do."""
    first = Recorder()
    outcome = run(rows, first)
    second = Recorder(first.returned)
    again = run(neighbour, second)
    found = set()
    if len(first.given) != len(second.given) or len(first.given) != 1:
        found.add("releases")
    distances = [distance(*pair) for pair in zip(first.given, second.given, strict=False)]
    if not max(distances) <= SENSITIVITY * (1 + 1e-5):
        found.add("sensitivity")
    same = jax.tree.map(np.array_equal, outcome, again)
    return found | ({"outcome"} if not all(jax.tree.leaves(same)) else set())


def whole_step(loss_fn, trainable, frozen, engine, precompute=lambda frozen, batch: batch) -> Run:
    """The project's own step: accumulate in batches of three rows, then one noised update."""
    settings = step.GradientSettings(CLIPPING, engine, 2)
    fast = fast_compile.options()
    accumulate = jax.jit(step.make_accumulate(loss_fn, precompute, settings), compiler_options=fast)

    start, update = compiled_parts()

    def run(rows, recorder):
        state, total = start(trainable)
        for batch, is_padding in chunks(rows, 3):
            total = accumulate(total, state.trainable, frozen, batch, is_padding)
        STAND.recorder = recorder
        state, metrics = update(state, total)
        return jax.block_until_ready((state.trainable, state.opt_state, metrics))

    return run


def chunks(rows, size):
    """Batches of a fixed size; what fills up the last one repeats rows."""
    count = len(next(iter(rows.values())))
    for start in range(0, count, size):
        kept = np.arange(start, min(start + size, count))
        places = np.resize(kept, size)
        yield {k: v[places] for k, v in rows.items()}, np.arange(size) >= len(kept)


def without(rows, row):
    return {k: np.delete(v, row, axis=0) for k, v in rows.items()}


def replaced(rows, row, **values):
    return {k: np.array([*v[:row], values.get(k, v[row]), *v[row + 1 :]]) for k, v in rows.items()}


# The project's step, every engine, on a problem whose rows may be any floats.


def toy_rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 3)).astype(np.float32) * 9
    x[3] = x[2]  # A pair that agrees; without row 0 both stand apart.
    x[5] = -x[4]
    return {"x": x, "sign": np.float32([1, -1, 1, 1, 1, 1, 1])}


def toy_loss(trainable, frozen, batch):
    from memarc.ops.linear import add_trailing, linear

    del frozen
    logits = add_trailing(linear(batch["x"], trainable["w"]), trainable["b"])[:, 0]
    return jnp.logaddexp(0.0, -batch["sign"] * logits)


def toy_trainable():
    return {"w": jnp.full((3, 1), 0.1), "b": jnp.zeros((1,))}


@pytest.mark.checklist(8, 10, 18, 23, 31)
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_row_of_any_kind_changes_nothing_but_the_input_of_the_noise(engine):
    run = whole_step(toy_loss, toy_trainable(), {}, engine)
    rows = toy_rows()
    bad = (np.nan, np.inf, 3e38)
    strange = [replaced(rows, 2, x=np.full(3, value, np.float32)) for value in bad]
    for given in (rows, *strange):
        for row in (0, 2, 3, 6):
            assert violations(run, given, without(given, row)) == set()
            assert violations(run, without(given, row), given) == set()
    empty = {k: v[:0] for k, v in rows.items()}
    one = {k: v[:1] for k, v in rows.items()}
    assert violations(run, one, empty) == set()


OFTEN = {"full": "book_keeping", "head": "loop", "lora": "ghost"}
OFTEN |= dict.fromkeys(("bitfit", "adapter", "side"))
"""The engine with which a method runs by default, "vmap" where none is named.

Methods that train some leaves of `full`, or maps in the places of `lora`'s, run when asked for.
"""


@pytest.mark.checklist(23, 26, 31)
@pytest.mark.parametrize(
    ("method", "engine"),
    [
        pytest.param(*given, marks=[pytest.mark.slow] * (given[1] != OFTEN.get(given[0], "vmap")))
        for given in itertools.product(METHODS, sorted(ENGINES))
    ],
)
def test_every_method_passes_with_long_and_empty_rows(
    method, engine, sizes, weights, rows, fast_jit
):
    model = build(method, {}, sizes(), HeadConfig("mean", 3))
    trainable, frozen = fast_jit(model.init)(jax.random.key(0), weights(sizes()))
    given = {k: np.asarray(v) for k, v in rows(5, (5, 2, 1, 4)).items()}
    given = replaced(given, 1, attention_mask=np.zeros(5, np.int32))  # No token at all.
    run = whole_step(model.loss, trainable, frozen, engine, model.precompute)
    for row in (0, 1):  # The longest; the empty one.
        assert violations(run, given, without(given, row)) == set()


# Mechanisms that are broken as libraries have been; each must be caught, by the right check.


compiled = functools.partial(jax.jit, compiler_options=fast_compile.options())


@compiled
def clipped_mean_gradient(trainable, batch, kept):
    """One clipped gradient of the mean loss of the rows that are kept."""
    gradient = jax.grad(lambda t: (toy_loss(t, {}, batch) * kept / kept.sum()).sum())(trainable)
    return jax.tree.map(
        lambda x: x * jnp.minimum(1.0, SENSITIVITY / optax.tree.norm(gradient)), gradient
    )


@compiled
def plain_gradient(trainable, batch):
    return jax.grad(lambda t: toy_loss(t, {}, batch).sum())(trainable)


@functools.lru_cache
def compiled_sum(clipping, size):
    """The project's own sum of one batch."""
    return compiled(
        functools.partial(
            clipped_grad_sum, toy_loss, clipping=clipping, engine="vmap", microbatch_size=size
        )
    )


def finish(total, divisor, extra=()):
    return jax.tree.map(lambda x: x / divisor, total), extra


def clips_the_mean(rows, recorder):
    """Two rows are clipped as one and counted twice: their sum may move by twice the bound."""
    total = summation.zero(toy_trainable()).value
    for batch, is_padding in chunks(rows, 2):
        kept = (~is_padding).astype(np.float32)
        clipped = clipped_mean_gradient(toy_trainable(), batch, kept)
        total = jax.tree.map(lambda x, y: x + 2 * y, total, clipped)
    return finish(recorder.add_noise(total), DIVISOR)


def project_sum(rows, clipping=CLIPPING):
    total = summation.zero(toy_trainable()).value
    for batch, is_padding in chunks(rows, 3):
        more, _ = compiled_sum(clipping, 3)(toy_trainable(), {}, batch, is_padding)
        total = jax.tree.map(jnp.add, total, more)
    return total


def divides_by_the_realised_batch(rows, recorder):
    return finish(recorder.add_noise(project_sum(rows)), len(rows["x"]))


def noises_every_microbatch(rows, recorder):
    total = summation.zero(toy_trainable()).value
    for start in range(0, len(rows["x"]), 3):
        part = {k: v[start : start + 3] for k, v in rows.items()}
        total = jax.tree.map(jnp.add, total, recorder.add_noise(project_sum(part)))
    return finish(total, DIVISOR)


def leaves_one_tensor_out(rows, recorder):
    """The bias is summed as it is: its gradient is in no norm."""
    total = project_sum(rows)
    plain = plain_gradient(toy_trainable(), rows)
    return finish(recorder.add_noise({**total, "b": plain["b"]}), DIVISOR)


def normalises_over_the_batch(rows, recorder):
    """Batch statistics: a row changes the gradients of all others."""
    mean, deviation = rows["x"].mean(0), rows["x"].std(0) + 1e-3
    return finish(
        recorder.add_noise(project_sum({**rows, "x": (rows["x"] - mean) / deviation})), DIVISOR
    )


def logs_the_raw_loss(rows, recorder):
    loss = toy_loss(toy_trainable(), {}, jax.tree.map(jnp.asarray, rows)).mean()
    return finish(recorder.add_noise(project_sum(rows)), DIVISOR, loss)


def noises_with_another_sensitivity(rows, recorder):
    """Clips at three times what the noise was made for."""
    wide = dataclasses.replace(CLIPPING, clip_norm=3 * SENSITIVITY)
    return finish(recorder.add_noise(project_sum(rows, clipping=wide)), DIVISOR)


@pytest.mark.checklist(9, 10, "19b", 19, 23, 26, 34)
@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (clips_the_mean, "sensitivity"),
        (divides_by_the_realised_batch, "outcome"),
        (noises_every_microbatch, "releases"),
        (leaves_one_tensor_out, "sensitivity"),
        (normalises_over_the_batch, "sensitivity"),
        (logs_the_raw_loss, "outcome"),
        (noises_with_another_sensitivity, "sensitivity"),
    ],
)
def test_a_broken_mechanism_is_caught_by_the_check_that_is_made_for_it(broken, caught_by):
    rows = toy_rows()
    found = set()
    for row in range(7):
        found |= violations(broken, rows, without(rows, row))
    assert caught_by in found


def test_the_parts_that_the_broken_mechanisms_are_made_of_are_sound():
    """So what the check catches is what was broken."""
    sound = lambda rows, recorder: finish(recorder.add_noise(project_sum(rows)), DIVISOR)
    rows = toy_rows()
    assert all(violations(sound, rows, without(rows, row)) == set() for row in range(7))
