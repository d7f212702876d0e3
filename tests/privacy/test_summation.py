"""Sums of thousands of clipped rows move by the part of a row that is left out, and hardly else."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.privacy import summation
from memarc.privacy.clipping import Clipping
from memarc.training import step
from tests import fast_compile

N, D, ROUNDING = 4096, 7, 2.0**-24
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
    return jax.lax.scan(more, summation.zero(jnp.zeros(D)), chunks)[0].value


@pytest.mark.checklist(6)
def test_leaving_out_the_first_of_many_alike_rows_moves_the_sum_by_its_part_alone():
    """All rows behind it move up, so that every addition rounds otherwise."""
    x = rows()
    whole = summed(x, jnp.zeros(N, bool))
    less = summed(np.roll(x, -1, axis=0), jnp.arange(N) >= N - 1)
    part = x[0] / np.linalg.norm(x[0].astype(np.float64))
    moved = np.asarray(whole, np.float64) - np.asarray(less, np.float64)
    bound = 2 * N * ROUNDING + 1e-5  # Both sums are rounded once; clipping leaves room of 1e-5.
    assert np.linalg.norm(moved - part) < bound
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
