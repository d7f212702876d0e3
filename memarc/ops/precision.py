"""The dtype of everything that must not lose precision, whatever the compute dtype."""

from typing import Any

import jax.numpy as jnp


def wide(dtype: Any) -> jnp.dtype:
    """float32, or float64 for float64 (tests): for norms, softmax, losses, sums and noise."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
