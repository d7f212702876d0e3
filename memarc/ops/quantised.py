"""Frozen matrices in 8 or 4 bits: codes in blocks of inputs, and what widens a block.

A value is scale * code, or scale * code + offset. Blocks lie along the inputs, so a matrix is cut
along its outputs, or between blocks, without changing a value. A matrix is widened where it is
used, a layer at a time inside a scan, and nothing wide is kept for a backward pass.

Axes: I inputs, O outputs, N blocks, n = I / N inputs of a block; stacking axes precede.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from memarc.ops.linear import add_trailing
from memarc.typing import Array, Params

BITS = {"int8": 8, "int4": 4}
"""Dtype of codes -> how many bits a code has."""

BLOCK = 32
"""How many inputs share a scale where nobody says otherwise."""


_AS_STORED = Layout(major_to_minor=(0, 1))
"""The order of a layer's codes where they are used. Left to itself a GPU's compiler turns the whole
stack around before the loop over layers, which takes the bytes of all codes once more."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["codes", "scales", "offsets"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class QuantisedKernel:
    """A structured kernel (`memarc.ops.linear`) that is frozen; no cotangent reaches it.

    Attributes:
      codes: int8, int4 or uint4 [.., I, O].
      scales: A floating-point dtype, [.., N, O].
      offsets: As ``scales``, or None for zero.
    """

    codes: Array
    scales: Array
    offsets: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix."""
        return self.codes.shape

    @property
    def size(self) -> int:
        """How many values the matrix has."""
        return self.codes.size

    @property
    def ndim(self) -> int:
        """The number of axes of the matrix."""
        return self.codes.ndim

    def linear(self, x: Array, bias: Any) -> Array:
        """Maps x [..., I] to [..., O]; the matrix is rounded once, to the dtype of ``x``."""
        y = _product(x, self)
        return y if bias is None else add_trailing(y, bias)

    def values(self) -> Array:
        """The matrix [.., I, O], float32."""
        found = self.codes.astype(jnp.float32) * self._over_inputs(self.scales)
        if self.offsets is not None:
            found = found + self._over_inputs(self.offsets)
        return found

    def _over_inputs(self, x: Array) -> Array:
        """[.., N, O] -> [.., I, O], float32."""
        return jnp.repeat(x.astype(jnp.float32), self.shape[-2] // x.shape[-2], axis=-2)


def quantise(values: Array, dtype: str, block: int) -> QuantisedKernel:
    """Rounds a matrix to codes, with scales in bfloat16.

    The largest value of a block has the code at the end of the range: -8 in 4 bits, whichever its
    sign, as a scale may be negative, and +-127 in 8.

    Args:
      values: [.., I, O].
      dtype: A name in `BITS`.
      block: n.

    Raises:
      ValueError: If blocks do not divide the inputs.
    """
    *lead, inputs, outputs = values.shape
    check_block(block, inputs)
    blocks = values.astype(jnp.float32).reshape(*lead, inputs // block, block, outputs)
    place = jnp.argmax(jnp.abs(blocks), axis=-2, keepdims=True)
    largest = jnp.take_along_axis(blocks, place, axis=-2)
    least, most = (-8, 7) if BITS[dtype] == 4 else (-127, 127)
    scales = (largest / least).astype(jnp.bfloat16)
    divisor = scales.astype(jnp.float32)
    codes = jnp.where(divisor == 0, 0, jnp.round(blocks / jnp.where(divisor == 0, 1, divisor)))
    codes = jnp.clip(codes, least, most).astype(jnp.dtype(dtype)).reshape(values.shape)
    return QuantisedKernel(codes, scales.squeeze(-2))


def check_block(block: int, inputs: int) -> None:
    """Raises ValueError if blocks do not divide the inputs of a matrix."""
    if block < 1 or inputs % block:
        fits = [n for n in range(8, inputs + 1, 8) if inputs % n == 0 and n <= 256]
        raise ValueError(
            f"model.storage_block is {block}, which does not divide a matrix of {inputs} inputs; "
            f"give one of {fits or [inputs]}."
        )


def is_quantised(leaf: Any) -> bool:
    """Whether a leaf of a tree is held in blocks."""
    return isinstance(leaf, QuantisedKernel)


def in_blocks(layers: Params, dtype: str, block: int) -> Params:
    """Layers whose kernels [L, I, O] are rounded to blocks; what else they hold stays."""

    def rounded(path: tuple[Any, ...], leaf: Array) -> Any:
        return quantise(leaf, dtype, block) if path[-1].key == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(rounded, layers)


def widened(tree: Params) -> Params:
    """A tree with the values of every quantised kernel, float32, in its place."""

    def wide(leaf: Any) -> Any:
        return leaf.values() if is_quantised(leaf) else leaf

    return jax.tree.map(wide, tree, is_leaf=is_quantised)


@jax.custom_vjp
def _product(x: Array, kernel: QuantisedKernel) -> Array:
    """``x @ kernel`` in the dtype of ``x``: [..., I] -> [..., O]."""
    return _contract(x, kernel, 0)


def _contract(x: Array, kernel: QuantisedKernel, axis: int) -> Array:
    """Contracts the last axis of ``x`` with an axis of the matrix [I, O]."""
    kernel = jax.tree.map(lambda v: with_layout_constraint(v, _AS_STORED), kernel)
    wide = kernel.values().astype(x.dtype)
    return jax.lax.dot_general(x, wide, (((x.ndim - 1,), (axis,)), ((), ())))


def _forward(x: Array, kernel: QuantisedKernel) -> tuple[Array, QuantisedKernel]:
    """Keeps the codes, from which the backward pass widens the matrix again."""
    return _product(x, kernel), kernel


def _backward(kernel: QuantisedKernel, g: Array) -> tuple[Array, None]:
    """The cotangent of ``x``; the kernel is frozen."""
    return _contract(g, kernel, 1), None


_product.defvjp(_forward, _backward)
