"""Fixed-point streams: int32 numbers whose halving loses nothing, because the lost bits are kept.

A float addition cannot be undone exactly; an integer one can. A stream holds values in units of its
channel, which are powers of two, so that dividing by them rounds nothing: few channels of a
pre-trained network reach tens of thousands, most stay below a hundred. A channel reaches 2^30 of
its units either way. Nothing ever wraps: values beyond the range are cut and their rows reported.

Source: reversible recurrent networks (MacKay et al. 2018, arXiv:1810.10999) keep the bits that a
forgetting multiplication loses; here the factor is a power of two.

Axes: B batch, D the last axis.
"""

import jax
import jax.numpy as jnp

from memarc.ops.precision import wide
from memarc.typing import Array

_LIMIT_BITS = 30
LIMIT = 2**_LIMIT_BITS - 1
"""Largest magnitude: the sum or difference of two such numbers still fits in 32 bits."""


def unit_of(largest: Array) -> Array:
    """The smallest unit in which a channel's largest value stays within the range.

    Args:
      largest: [D], magnitudes above zero.

    Returns:
      Powers of two, [D].
    """
    fraction, exponent = jnp.frexp(largest)  # Fractions are in [1/2, 1).
    exponent = jnp.where(fraction == 0.5, exponent - 1, exponent)
    return jnp.ldexp(jnp.ones_like(largest), exponent - _LIMIT_BITS)


def to_fixed(x: Array, unit: Array) -> tuple[Array, Array]:
    """Rounds floats to fixed point.

    Args:
      x: [B, ..., D] of any float dtype.
      unit: [D], powers of two.

    Returns:
      int32[B, ...], and int32[B], how many values of each row are out of range or not finite; they
      are cut to the range, NaN to zero.
    """
    values = x.astype(wide(x.dtype))
    scaled = jnp.round(values / _along(unit, values))
    is_outside = ~(jnp.abs(scaled) <= LIMIT)  # True for NaN.
    # The largest float32 below 2^30 is 2^30 - 64, so the cast cannot wrap.
    largest = float(2**30 - 64)
    cut = jnp.clip(jnp.where(jnp.isnan(scaled), 0.0, scaled), -largest, largest)
    return cut.astype(jnp.int32), _count_in_row(is_outside)


def to_float(x: Array, unit: Array, dtype: jnp.dtype) -> Array:
    """Fixed point int32[..., D] in units [D] as floats."""
    values = x.astype(wide(dtype))
    return (values * _along(unit, values)).astype(dtype)


def add(x: Array, y: Array) -> tuple[Array, Array]:
    """Adds fixed-point numbers within the range.

    Returns:
      int32[B, ...], cut to the range, and int32[B], how many values of each row left it.
    """
    total = x + y
    return jnp.clip(total, -LIMIT, LIMIT), _count_in_row(jnp.abs(total) > LIMIT)


def halve(x: Array, times: int) -> tuple[Array, Array]:
    """Divides by 2^times, rounding down.

    Args:
      x: int32[..., D].
      times: k, 1 to 8.

    Returns:
      int32[..., D], and the k lost bits of every value, packed: uint8[..., ceil(D / n)] with
      n = 8 / k values a byte (k rounded up to 1, 2, 4 or 8).
    """
    return x >> times, _pack(x & (2**times - 1), times)


def unhalve(x: Array, bits: Array, times: int) -> Array:
    """The inverse of `halve`, bit for bit."""
    return (x << times) | _unpack(bits, times, x.shape[-1])


def _along(unit: Array, values: Array) -> Array:
    """Units [D] as [1, ..., D], in the dtype of values."""
    return unit.astype(values.dtype).reshape(*[1] * (values.ndim - 1), -1)


def _count_in_row(is_outside: Array) -> Array:
    return is_outside.reshape(is_outside.shape[0], -1).sum(1, dtype=jnp.int32)


def _width(times: int) -> int:
    """Bits set aside for each value: the next of 1, 2, 4, 8."""
    return 1 << (times - 1).bit_length()


def _pack(values: Array, times: int) -> Array:
    width = _width(times)
    per_byte = 8 // width
    missing = -values.shape[-1] % per_byte
    padded = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)]).astype(jnp.uint8)
    groups = padded.reshape(*values.shape[:-1], -1, per_byte)
    packed = jnp.zeros(groups.shape[:-1], jnp.uint8)
    for place in range(per_byte):
        packed = packed | (groups[..., place] << (place * width))
    return packed


def _unpack(packed: Array, times: int, size: int) -> Array:
    width = _width(times)
    mask = jnp.uint8(2**width - 1)
    places = [(packed >> (place * width)) & mask for place in range(8 // width)]
    values = jnp.stack(places, axis=-1).reshape(*packed.shape[:-1], -1)
    return jax.lax.slice_in_dim(values, 0, size, axis=-1).astype(jnp.int32)
