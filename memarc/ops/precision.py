"""The dtype of everything that must not lose precision, whatever the compute dtype."""

from typing import Any

import jax
import jax.numpy as jnp

from memarc.typing import Array


def wide(dtype: Any) -> jnp.dtype:
    """float32, or float64 for float64 (tests): for norms, softmax, losses, sums and noise."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def bfloat16_parts(x: Array) -> Array:
    """Three bfloat16 arrays [3, ...] that add up to float32 values, largest first.

    A float32 has 24 significant bits and a bfloat16 eight, so values above 2^-102 lose nothing
    (what is below 2^-126, the least normal number, devices may take for zero), and a matrix unit
    for bfloat16 takes each part at full speed. Casts there and back would not do: compilers may
    leave out both.
    """
    parts = []
    for _ in range(3):
        part = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
        parts.append(part.astype(jnp.bfloat16))
        x = x - part
    return jnp.stack(parts)
