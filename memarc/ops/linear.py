"""Every way in which a model uses a parameter: linear maps, vectors, rows of a table, gates.

A kernel may be a structured kernel, a pytree with a method ``linear(x, bias)``: a frozen matrix
plus a low-rank update, a matrix followed by an adapter, and so on. Tuning methods put such kernels
where a backbone's parameters had plain ones, so the backbone's code needs to know no tuning
method. Any parameter may be tapped (`memarc.ops.taps`).

Axes: B batch, T all axes between batch and features, I inputs, O outputs, V rows of a table.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from memarc.ops.precision import bfloat16_parts, wide, with_allowance
from memarc.ops.taps import Inputs, Op, Shape, Tapped, use
from memarc.typing import Array

LINEAR = "linear"
"""What results of `linear` are called where a `jax.checkpoint` chooses what to keep."""

_FULL = jax.lax.Precision.HIGHEST


@runtime_checkable
class StructuredKernel(Protocol):
    """A kernel that computes its own linear map; its first leaf has the plain kernel's shape."""

    def linear(self, x: Array, bias: Any) -> Array:
        """Maps x [..., I] to [..., O]."""
        ...


Vector = Array | Tapped


def linear(
    x: Array, kernel: Array | Tapped | StructuredKernel, bias: Vector | None = None
) -> Array:
    """Computes ``x @ kernel + bias`` in the dtype of ``x``.

    Args:
      x: [..., I]; its dtype is the compute dtype.
      kernel: [I, O], or a structured kernel.
      bias: [O] or None.

    Returns:
      [..., O] in the dtype of ``x``.
    """
    if isinstance(kernel, StructuredKernel):
        return checkpoint_name(kernel.linear(x, bias), LINEAR)
    y = checkpoint_name(use(DENSE, kernel, x), LINEAR)  # A tapped bias reads it without the bias.
    return y if bias is None else add_trailing(y, bias)


def add_trailing(x: Array, vector: Vector) -> Array:
    """Adds a vector [O] to x [..., O] in the dtype of x (no implicit rank promotion)."""
    return use(ADD, vector, x)


def multiply_trailing(x: Array, vector: Vector) -> Array:
    """Multiplies x [..., O] by a vector [O] in the dtype of x."""
    return use(MULTIPLY, vector, x)


def take_rows(table: Array | Tapped, ids: Array) -> Array:
    """Rows of a table [V, O] at ids int32[B, ...], in float32 or wider: [B, ..., O]."""
    return use(ROWS, table, ids)


def elementwise(name: str, function: Callable[..., Array]) -> Op:
    """An op of a small parameter of any use; its per-example gradients are always formed.

    Args:
      name: The name of the op.
      function: ``(scalar value, *inputs [B, ...]) -> [B, ...]``, each example on its own.
    """
    return _small(name, 0, function)


def _small(name: str, rank: int, function: Callable[..., Array]) -> Op:
    def instantiate(value: Array, inputs: Inputs, g: Array) -> Array:
        def one(inputs: Inputs, g: Array) -> Array:
            batch_of_one = [x[None] for x in inputs]
            _, pullback = jax.vjp(lambda v: function(v, *batch_of_one), value.astype(wide(g.dtype)))
            return pullback(g[None])[0]

        return jax.vmap(one)(inputs, g)

    def weighted_sum(value: Array, inputs: Inputs, g: Array, factors: Array) -> Array:
        return jnp.tensordot(factors, instantiate(value, inputs, g), axes=1, precision=_FULL)

    return Op(
        name, rank, function, instantiate, None, lambda value, inputs: False, weighted_sum, None
    )


def _dense(kernel: Array, x: Array) -> Array:
    return jax.lax.dot_general(x, kernel.astype(x.dtype), (((x.ndim - 1,), (0,)), ((), ())))


def _dense_instantiate(kernel: Array, inputs: Inputs, g: Array) -> Array:
    del kernel
    x, g = flat(inputs[0]), flat(g)
    return einsum("bti,bto->bio", x, g)


def _dense_ghost(kernel: Array, inputs: Inputs, g: Array) -> Array:
    del kernel
    x, g = flat(inputs[0]), flat(g)
    if x.shape[1] == 1:
        return jnp.sum(_square(x), (1, 2)) * jnp.sum(_square(g), (1, 2))
    return sum_of_products(einsum("bti,bsi->bts", x, x), einsum("bto,bso->bts", g, g))


def _dense_prefers_ghost(kernel: Shape, inputs: tuple[Shape, ...]) -> bool:
    """Compares multiplications: T (I + O) of two Gram matrices against I O, both times T."""
    (x,), (features, outputs) = inputs, kernel
    tokens = math.prod(x[1:-1])
    return tokens * (features + outputs) <= features * outputs


def _dense_weighted_sum(kernel: Array, inputs: Inputs, g: Array, factors: Array) -> Array:
    del kernel
    x, g = flat(inputs[0]), flat(g)
    if x.shape[-1] < g.shape[-1]:  # The smaller is widened.
        return product("bti,bto->io", _scaled(x, factors), g)
    return product("bto,bti->io", _scaled(g, factors), x)


def _dense_spread(kernel: Array, inputs: Inputs, g: Array) -> Array:
    del kernel
    return jnp.sum(lengths(flat(inputs[0])) * lengths(flat(g)), 1)


def _scaled(x: Array, factors: Array) -> Array:
    """Rows [B, ...] times their factors [B], in float32 or wider."""
    dtype = wide(x.dtype)
    return x.astype(dtype) * factors.astype(dtype).reshape(-1, *(1,) * (x.ndim - 1))


def _add(vector: Array, x: Array) -> Array:
    return x + jnp.broadcast_to(vector.astype(x.dtype), x.shape)


def _multiply(vector: Array, x: Array) -> Array:
    return x * jnp.broadcast_to(vector.astype(x.dtype), x.shape)


def _rows(table: Array, ids: Array) -> Array:
    return table[ids].astype(wide(table.dtype))


def _rows_instantiate(table: Array, inputs: Inputs, g: Array) -> Array:
    def one(ids: Array, g: Array) -> Array:
        return jnp.zeros(table.shape, g.dtype).at[ids.reshape(-1)].add(g.reshape(-1, g.shape[-1]))

    return jax.vmap(one)(inputs[0], g)


def _rows_ghost(table: Array, inputs: Inputs, g: Array) -> Array:
    del table
    ids, g = inputs[0].reshape(inputs[0].shape[0], -1), flat(g)
    same = (ids[:, :, None] == ids[:, None, :]).astype(wide(g.dtype))
    return sum_of_products(same, einsum("bto,bso->bts", g, g))


def _rows_prefers_ghost(table: Shape, inputs: tuple[Shape, ...]) -> bool:
    (ids,), (rows, _) = inputs, table
    return math.prod(ids[1:]) ** 2 <= rows


def _rows_weighted_sum(table: Array, inputs: Inputs, g: Array, factors: Array) -> Array:
    scaled = _scaled(flat(g), factors)
    zeros = jnp.zeros(table.shape, scaled.dtype)
    return zeros.at[inputs[0].reshape(-1)].add(scaled.reshape(-1, scaled.shape[-1]))


def _rows_spread(table: Array, inputs: Inputs, g: Array) -> Array:
    del table, inputs
    return jnp.sum(lengths(flat(g)), 1)


DENSE = Op(
    "dense",
    2,
    _dense,
    _dense_instantiate,
    _dense_ghost,
    _dense_prefers_ghost,
    _dense_weighted_sum,
    _dense_spread,
)
ADD = _small("add", 1, _add)
MULTIPLY = _small("multiply", 1, _multiply)
ROWS = Op(
    "rows",
    2,
    _rows,
    _rows_instantiate,
    _rows_ghost,
    _rows_prefers_ghost,
    _rows_weighted_sum,
    _rows_spread,
)


def flat(x: Array) -> Array:
    """[B, ..., O] -> [B, T, O]."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def lengths(x: Array) -> Array:
    """Euclidean lengths [B, T] of x [B, T, O], in float32 or wider."""
    return jnp.sqrt(jnp.sum(_square(x), -1))


def _square(x: Array) -> Array:
    return jnp.square(x.astype(wide(x.dtype)))


def einsum(subscripts: str, x: Array, y: Array) -> Array:
    """Accumulates in float32 or wider; operands below float32 are exact, so none is rounded."""
    return jnp.einsum(
        subscripts, x, y, precision=_FULL, preferred_element_type=wide(jnp.result_type(x, y))
    )


def product(subscripts: str, x: Array, y: Array) -> Array:
    """`einsum` of a float32 (or wider) array and one that may be bfloat16: no operand is rounded.

    With bfloat16 the first is cut into exact parts, which meet the second at bfloat16's speed;
    products are exact in float32, and so are only their sums rounded.
    """
    if y.dtype != jnp.bfloat16:
        return einsum(subscripts, x, y.astype(x.dtype))
    first, rest = subscripts.split(",")
    second, out = rest.split("->")
    return einsum(f"p{first},{second}->p{out}", bfloat16_parts(x), y)[::-1].sum(0)


def sum_of_products(x: Array, y: Array) -> Array:
    """Sum of x * y, two Gram matrices [B, T, T], plus what rounding may have taken off."""
    diagonal = jnp.einsum("btt,btt->bt", x, y)
    return with_allowance(jnp.sum(x * y, (1, 2)), jnp.sum(jnp.sqrt(diagonal), 1))
