"""Claims about fixed-point streams: nothing is lost, nothing wraps."""

import jax.numpy as jnp
import numpy as np
import pytest

from memarc.ops import fixed_point

LIMIT = fixed_point.LIMIT
UNIT = 2.0**-16


@pytest.mark.parametrize("times", range(1, 9))
@pytest.mark.parametrize("size", [1, 7, 8])
def test_halving_comes_back_bit_for_bit_and_keeps_k_bits(times, size):
    rng = np.random.default_rng(times)
    x = rng.integers(-LIMIT, LIMIT, (3, 5, size), np.int32)
    x[0, 0, 0], x[1, 0, 0], x[2, 0, 0] = -LIMIT, LIMIT, -1
    moved, bits = fixed_point.halve(jnp.asarray(x), times)
    np.testing.assert_array_equal(moved, np.floor(x / 2.0**times).astype(np.int32))
    np.testing.assert_array_equal(fixed_point.unhalve(moved, bits, times), x)
    a_byte = 8 // {1: 1, 2: 2, 3: 4, 4: 4}.get(times, 8)
    assert bits.dtype == jnp.uint8 and bits.shape == (3, 5, -(-size // a_byte))


def test_without_the_kept_bits_halving_does_not_come_back():
    moved, bits = fixed_point.halve(jnp.array([[5, -3, 8]]), 2)
    assert not np.array_equal(fixed_point.unhalve(moved, bits * 0, 2), [[5, -3, 8]])


def test_floats_are_rounded_to_the_nearest_step():
    x = jnp.array([[1.0, -0.5 / 2**16 * 1.01, 3.2 / 2**16, 25033.2]])
    units = jnp.array([UNIT, UNIT, UNIT, 0.25])
    fixed, outside = fixed_point.to_fixed(x, units)
    np.testing.assert_array_equal(fixed, [[65536, -1, 3, 100133]])
    assert not outside[0]
    np.testing.assert_array_equal(
        fixed_point.to_float(fixed, units, jnp.dtype(jnp.float32)),
        [[1.0, -UNIT, 3 * UNIT, 25033.25]],
    )


@pytest.mark.parametrize(("largest", "reach"), [(1.0, 1.0), (1.5, 2.0), (25033.0, 32768.0)])
def test_a_unit_is_the_smallest_power_of_two_that_reaches_the_largest_value(largest, reach):
    unit = fixed_point.unit_of(jnp.array([largest]))
    assert unit[0] == reach * 2.0**-30


@pytest.mark.checklist(18)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 16385.0, -3e38])
def test_a_row_that_leaves_the_range_is_reported_and_cut_never_wrapped(value):
    x = np.zeros((3, 2, 2), np.float32)
    x[1, 0, 1] = value
    fixed, outside = fixed_point.to_fixed(jnp.asarray(x), jnp.full(2, UNIT))
    np.testing.assert_array_equal(outside, [0, 1, 0])
    assert np.abs(np.asarray(fixed, np.int64)).max() <= LIMIT
    assert np.isnan(value) or np.sign(fixed[1, 0, 1]) == np.sign(value)


def test_a_sum_beyond_the_range_is_cut_and_reported():
    x = jnp.array([[LIMIT, 1], [LIMIT, 1]])
    total, outside = fixed_point.add(x, jnp.array([[LIMIT, 1], [0, 1]]))
    np.testing.assert_array_equal(total, [[LIMIT, 2], [LIMIT, 2]])
    np.testing.assert_array_equal(outside, [1, 0])
