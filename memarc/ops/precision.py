"""The dtype of everything that must not lose precision, whatever the compute dtype."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memarc.typing import Array


def wide(dtype: Any) -> jnp.dtype:
    """float32, or float64 for float64 (tests): for norms, softmax, losses, sums and noise."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def wide_einsum(subscripts: str, x: Array, y: Array) -> Array:
    """An einsum of two arrays of one dtype with a `wide` result, whose way back is not wide.

    The cotangent is rounded to the arrays' dtype before it is multiplied. Left to autodiff, the
    products of the way back would take it as it is, in float32, and the other array would be
    widened for them: a table of words to twice its bytes, at a fraction of the speed.

    Args:
      subscripts: As `jax.numpy.einsum` takes them.
      x: An array.
      y: An array of its dtype.
    """
    return _wide_einsum(subscripts, x, y)


def _apply(subscripts: str, x: Array, y: Array) -> Array:
    return jnp.einsum(subscripts, x, y, preferred_element_type=wide(x.dtype))


def _forward(subscripts: str, x: Any, y: Any) -> tuple[Array, Any]:
    """Keeps both arrays, and of each whether its cotangent is wanted: a tuple, or else None."""
    wanted = [() if operand.perturbed else None for operand in (x, y)]
    return _apply(subscripts, x.value, y.value), (x.value, y.value, wanted)


def _backward(subscripts: str, kept: Any, g: Array) -> tuple[Array | None, Array | None]:
    x, y, (of_x, of_y) = kept
    g = g.astype(x.dtype)

    def back(product: Callable[[Array], Array], operand: Array) -> Array:
        return jax.linear_transpose(product, operand)(g)[0]

    return (
        None if of_x is None else back(lambda x: jnp.einsum(subscripts, x, y), x),
        None if of_y is None else back(lambda y: jnp.einsum(subscripts, x, y), y),
    )


_wide_einsum = jax.custom_vjp(_apply, nondiff_argnums=(0,))
_wide_einsum.defvjp(_forward, _backward, symbolic_zeros=True)


def with_allowance(squares: Array, spread: Array) -> Array:
    """Squared norms of sums, plus what rounding may have taken off them.

    Terms of both signs may cancel, and a norm that comes out too small would let its example pass
    its bound. By Cauchy and Schwarz all terms together are at most as long as their lengths' sum,
    and rounding errors are a few units in the last place of that.

    Args:
      squares: [B], float32 or wider.
      spread: [B], the sum of the lengths of the terms of each.
    """
    return squares + 4.0 * jnp.finfo(squares.dtype).eps * jnp.square(spread)


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
