"""Sums of thousands of clipped rows move by the part of a row that is left out, and hardly else."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from memarc.privacy import noise, summation
from memarc.privacy.clipping import Clipping
from memarc.training import step
from tests import fast_compile

N, D = 4096, 7
CLIPPING = Clipping(1.0)


def rows():
    """Nearly alike rows, clipped to norm 1: the running sum is as long as it can be."""
    random = np.random.default_rng(3)
    return (2 * random.normal(size=D) + 1e-3 * random.normal(size=(N, D))).astype(np.float32)


@partial(jax.jit, compiler_options=fast_compile.FULLY)
def summed(x, is_padding):
    """The sum of a step, 64 rows a batch and 8 at once."""
    loss = lambda trainable, frozen, batch: batch["x"] @ trainable
    add = step.make_accumulate(
        loss, lambda frozen, batch: batch, step.GradientSettings(CLIPPING, "vmap", 8)
    )
    more = lambda total, chunk: (add(total, jnp.zeros(D), {}, {"x": chunk[0]}, chunk[1]), None)
    chunks = (x.reshape(-1, 64, D), is_padding.reshape(-1, 64))
    return jax.lax.scan(more, summation.zero(jnp.zeros(D)), chunks)[0]


def exact(found):
    """Both parts of a sum together, which the noise meets."""
    return np.asarray(found.total, np.float64) + np.asarray(found.lost, np.float64)


@pytest.mark.checklist(6)
def test_leaving_out_the_first_of_many_alike_rows_moves_the_sum_by_its_part_alone():
    """All rows behind it move up, so that every addition rounds otherwise."""
    x = rows()
    whole = summed(x, jnp.zeros(N, bool))
    less = summed(np.roll(x, -1, axis=0), jnp.arange(N) >= N - 1)
    part = x[0] / np.linalg.norm(x[0].astype(np.float64))
    moved, bound = exact(whole) - exact(less), 2e-5
    assert np.linalg.norm(moved) <= 1.0  # Clipping leaves room of 1e-5.
    assert np.linalg.norm(moved - part) < bound
    once = np.asarray(whole.value, np.float64) - np.asarray(less.value, np.float64)
    assert np.linalg.norm(once - part) > bound  # Rounded to float32 before the noise.
    clipped = np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
    moved = plain(clipped) - plain(np.roll(clipped, -1, axis=0)[:-1])
    assert np.linalg.norm(moved - part) > bound  # Without compensation.


def plain(x):
    """A float32 sum of eight rows at a time, each added as it comes."""
    total = np.zeros(D, np.float32)
    for start in range(0, len(x), 8):
        total = total + x[start : start + 8].sum(0)
    return np.asarray(total, np.float64)


def test_what_an_addition_loses_is_added_to_the_next():
    found = summation.zero({"w": jnp.zeros(())})
    for value in (2.0**24, 1.0, 1.0, 1.0, 1.0):  # float32 has no 2^24 + 1.
        found = summation.add(found, {"w": jnp.float32(value)})
    assert float(found.value["w"]) == 2.0**24 + 4


def test_noise_meets_both_parts_of_a_sum_before_they_are_rounded_together():
    """The least step of float32 at 2^24 is 2, so that one rounding may take 1 and two take more."""
    private = noise.add_gaussian_noise(1.0, jax.random.key(3))
    state = private.init({})
    total, lost = {"w": jnp.full(640, 2.0**24)}, {"w": jnp.full(640, 0.75)}
    drawn, _ = private.update(jax.tree.map(jnp.zeros_like, total), state)
    found = summation.CompensatedSum(total, lost)
    wanted = 2.0**24 + 0.75 + np.asarray(drawn["w"], np.float64)
    once, twice = (private.update(x, state)[0]["w"] for x in (found, found.value))
    assert np.abs(np.asarray(once, np.float64) - wanted).max() <= 1.0
    start = step.TrainState(jnp.int32(0), jax.tree.map(jnp.zeros_like, total), state, ())
    moved, _ = step.make_update(private, optax.stateless_with_tree_map(lambda g, p: g))(
        start, found
    )  # A step does so.
    np.testing.assert_array_equal(moved.trainable["w"], once)
    assert np.abs(np.asarray(twice, np.float64) - wanted).max() > 1.5
