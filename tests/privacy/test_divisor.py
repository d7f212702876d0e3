"""Two data sets that differ by one row cannot be told apart by what an update is divided by.

The noise of an update has D independent coordinates, so that its length tells its scale to one part
in sqrt(2 D). A divisor that depends on the data shows in it, however large sigma is. Data-dependent
divisors of the two forms of arXiv:2605.15648, an expected and a sampled size, must be caught.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from memarc.privacy import noise
from memarc.privacy.mechanism import Mechanism, PrivacyConfig

ROWS, COORDINATES, TRIALS = 21, 30_000, 12
RATE = 2 / 3

PLAN = Mechanism.create(
    PrivacyConfig(
        epsilon=3.0, delta=1e-3, expected_batch_size=14, noise_multiplier=50.0, accountant="rdp"
    ),
    num_examples=ROWS,
    steps=1,
    unit="one row",
)
"""One plan for both neighbours: the number of rows in it is a public constant."""


def planned(rows, drawn):
    del rows, drawn
    return float(PLAN.divisor)


def expected_size(rows, drawn):
    del drawn
    return RATE * rows


def sampled_size(rows, drawn):
    del rows
    return float(max(drawn, 1))


@jax.jit
def length_of_update(key, clipped_sum):
    """The length of what the plan's own transformation makes of a clipped sum."""
    private = PLAN.gradient_transform(key)
    return optax.tree.norm(private.update(clipped_sum, private.init(clipped_sum))[0])


def drawn_of(trial, rows):
    """How many rows a trial draws."""
    return int((np.random.default_rng(trial).random(rows) < RATE).sum())


def update_lengths(divisor, rows, *, first):
    """Lengths of updates of a data set of ``rows`` equal rows, each trial with its own noise."""
    found = []
    for trial in range(first, first + TRIALS):
        drawn = drawn_of(trial, rows)
        clipped_sum = {"w": jnp.zeros(COORDINATES).at[0].set(float(drawn))}
        length = length_of_update(jax.random.key(trial), clipped_sum)
        # The transformation divides by its own constant; another divisor is another scale.
        found.append(float(length) * PLAN.divisor / divisor(rows, drawn))
    return np.array(found)


def test_the_transformation_divides_by_the_planned_size():
    noised = {"w": jnp.full(3, 5.0)}
    divided, _ = noise.divide_by(PLAN.divisor).update(noised, optax.EmptyState())
    np.testing.assert_allclose(divided["w"], 5.0 / 14)
    assert planned(ROWS, 3) == planned(ROWS - 1, 0) == 14.0


@pytest.mark.checklist(11, 42)
def test_lengths_of_updates_do_not_tell_two_neighbours_apart():
    whole = update_lengths(planned, ROWS, first=0)
    without = update_lengths(planned, ROWS - 1, first=TRIALS)
    spread = whole[0] / np.sqrt(2 * COORDINATES)
    assert abs(whole.mean() - without.mean()) < 4 * spread * np.sqrt(2 / TRIALS)


@pytest.mark.checklist(11, 42)
def test_an_expected_size_that_counts_private_rows_tells_them_apart_every_time():
    whole = update_lengths(expected_size, ROWS, first=0)
    without = update_lengths(expected_size, ROWS - 1, first=TRIALS)
    assert whole.max() < without.min()  # At sigma 50: no epsilon bounds that.


@pytest.mark.checklist(10, 42)
def test_a_sampled_size_tells_how_many_rows_were_drawn():
    """Two draws that differ by one row, whose noised sums are the same to one part in sqrt(2 D)."""
    lengths = {size: update_lengths(lambda _, drawn: drawn, size, first=0) for size in (20, 21)}
    sizes = {size: [drawn_of(trial, size) for trial in range(TRIALS)] for size in lengths}
    told = {
        size: [round(float(PLAN.noise_stddev * np.sqrt(COORDINATES) / x)) for x in lengths[size]]
        for size in lengths
    }
    assert told == sizes  # The length of an update is the size of its draw, read off exactly.
    ours = update_lengths(planned, ROWS, first=0)
    assert len({round(float(x), 1) for x in ours / ours.mean()}) == 1  # And here it is not.
