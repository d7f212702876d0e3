"""Bounds per-example gradients and sums them; states the sensitivity of the sum.

Axes: B batch.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from memarc.ops.precision import wide
from memarc.typing import Array, Params

RULES = ("abadi", "automatic")
SCOPES = ("flat", "per_layer")

AUTOMATIC_GAMMA = 0.01
"""The stability constant of automatic clipping (Bu et al. 2022, arXiv:2206.07136, AUTO-S)."""

ROUNDING_SLACK = 1e-5
"""Share of the clip norm given up so that float32 rounding of norms, factors and products
(about 2e-6 for 1e8 parameters) never lifts a clipped gradient above the bound."""


@dataclasses.dataclass(frozen=True)
class Clipping:
    """How each example's gradient is bounded.

    Attributes:
      clip_norm: Bound C > 0 on the L2 norm of one example's contribution, in gradient units.
      rule: "abadi" scales by min(1, C / n); "automatic" by C / (n + 0.01), n the norm.
      scope: "flat" bounds the norm over all parameters; "per_layer" the norm of each of G groups
        by C / sqrt(G), a group being one parameter of one layer, so that every gradient can be
        clipped as soon as it is there (He et al. 2022, arXiv:2212.01539).

    >>> Clipping(clip_norm=2.0).sensitivity
    2.0
    >>> Clipping(clip_norm=2.0, scope="per_layer").of_group(4).clip_norm
    1.0
    """

    clip_norm: float
    rule: str = "abadi"
    scope: str = "flat"

    def __post_init__(self) -> None:
        """Checks every field."""
        if not (math.isfinite(self.clip_norm) and self.clip_norm > 0):
            raise ValueError(f"clip_norm is {self.clip_norm}; give a finite number above 0.")
        if self.rule not in RULES:
            raise ValueError(f"Unknown clipping rule {self.rule!r}; choose one of {RULES}.")
        if self.scope not in SCOPES:
            raise ValueError(f"Unknown clipping scope {self.scope!r}; choose one of {SCOPES}.")

    @property
    def sensitivity(self) -> float:
        """L2 change of the clipped sum when one example is added or removed, whatever the rule."""
        return self.clip_norm

    def of_group(self, groups: int) -> "Clipping":
        """How one of ``groups`` groups is clipped; the squares of all their bounds sum to C^2."""
        return dataclasses.replace(self, clip_norm=self.clip_norm / math.sqrt(groups), scope="flat")


def clip_factors(norms: Array, clipping: Clipping) -> Array:
    """Gives the factor in [0, C / n] by which each gradient is scaled.

    Args:
      norms: Gradient norms, float32[B] or float64[B]; a non-finite norm gives factor 0.
      clipping: The rule and its bound.

    Returns:
      Factors, [B] in the dtype of ``norms``; factor times norm stays below C in real arithmetic
      even after float32 rounding.

    Source: Abadi et al. 2016, arXiv:1607.00133; Bu et al. 2022, arXiv:2206.07136.

    >>> norms = jnp.array([0.5, 2.0, 8.0, jnp.nan])
    >>> [round(x, 3) for x in clip_factors(norms, Clipping(2.0, "abadi")).tolist()]
    [1.0, 1.0, 0.25, 0.0]
    """
    bound = clipping.clip_norm * (1.0 - ROUNDING_SLACK)
    if clipping.rule == "automatic":
        factors = bound / (norms + AUTOMATIC_GAMMA)
    else:
        # A ratio above 1 may overflow for tiny norms; dividing by max(n, bound) cannot.
        factors = bound / jnp.maximum(norms, bound)
    return jnp.where(jnp.isfinite(norms), factors, jnp.zeros_like(factors))


def per_example_norms(gradients: Params) -> Array:
    """Takes the L2 norm of each example's whole gradient, without overflow or underflow.

    Every example is first scaled by its largest magnitude, so norms are right to float32 rounding
    for magnitudes 1e-30 to 1e30, whatever the leaves' dtype.

    Args:
      gradients: Tree of [B, ...] leaves.

    Returns:
      [B] in float32, or float64 if any leaf is; non-finite where any entry is.
    """
    leaves = _wide_leaves(gradients)
    batch = leaves[0].shape[0]
    largest = jnp.zeros((batch,), leaves[0].dtype)
    for leaf in leaves:
        if leaf.size:
            largest = jnp.maximum(largest, jnp.max(jnp.abs(leaf), axis=_all_but_first(leaf)))
    # Zero and non-finite rows are left unscaled: 0 / 0 must not turn a zero gradient into NaN.
    scale = jnp.where(jnp.isfinite(largest) & (largest > 0), largest, jnp.ones_like(largest))
    total = jnp.zeros_like(largest)
    for leaf in leaves:
        scaled = leaf / _like_rows(scale, leaf)
        total = total + jnp.sum(jnp.square(scaled), axis=_all_but_first(leaf))
    return scale * jnp.sqrt(total)


def clip_and_sum(
    gradients: Params, is_kept: Array, clipping: Clipping
) -> tuple[Params, Array, Array]:
    """Clips each example's gradient and sums over the batch.

    The sum's L2 sensitivity to adding or removing one example is ``clipping.sensitivity``.

    Args:
      gradients: Tree of per-example gradients, leaves [B, ...] of any float dtype.
      is_kept: bool[B]; False rows add exactly zero, whatever they hold.
      clipping: The rule and its bound.

    Returns:
      The sum in float32 (float64 if a leaf is), leaves without B; norms before clipping [B], zero
      where a row adds nothing; and bool[B], the rows that were added: kept and finite.
    """
    norms = per_example_norms(gradients)
    is_added = is_kept & jnp.isfinite(norms)
    norms = jnp.where(is_added, norms, jnp.zeros_like(norms))
    factors = jnp.where(is_added, clip_factors(norms, clipping), jnp.zeros_like(norms))

    def contract(leaf: Array) -> Array:
        values = leaf.astype(wide_dtype(leaf))
        # A zero factor does not silence NaN or inf, so such rows are blanked as well.
        blanked = jnp.where(_like_rows(is_added, values), values, jnp.zeros_like(values))
        # Full precision: with bfloat16 or TF32 passes a row could exceed its bound by 0.4 %.
        return jnp.tensordot(
            factors.astype(values.dtype), blanked, axes=1, precision=jax.lax.Precision.HIGHEST
        )

    return jax.tree.map(contract, gradients), norms, is_added


def clip_and_sum_by_group(
    gradients: Params, stacks: list[tuple[int, ...]], is_kept: Array, clipping: Clipping
) -> tuple[Params, Array]:
    """Clips each parameter of each layer on its own, and sums over the batch.

    A group whose norm is not finite adds exactly zero; the row's other groups add what they have.

    Args:
      gradients: Tree of per-example gradients, leaves [B, *stack, ...].
      stacks: The stacking axes of each leaf, () or (layers,).
      is_kept: bool[B]; False rows add exactly zero.
      clipping: The rule and the bound of the whole; a group's bound is `Clipping.of_group`.

    Returns:
      The sum, as `clip_and_sum` gives it, and the norms [B] over all groups that were added.
    """
    leaves, tree = jax.tree.flatten(gradients)
    each = clipping.of_group(sum(math.prod(stack) for stack in stacks))
    sums, squares = [], jnp.zeros((), jnp.float32)
    for leaf, stack in zip(leaves, stacks, strict=True):
        layers = leaf.reshape(leaf.shape[0], math.prod(stack), -1)  # [B, L, all else]
        by_layer = jax.vmap(lambda g: clip_and_sum(g, is_kept, each)[:2], in_axes=1)
        total, norms = by_layer(layers)
        sums.append(total.reshape(leaf.shape[1:]))
        squares = squares.astype(norms.dtype) + jnp.sum(jnp.square(norms), 0)
    return tree.unflatten(sums), jnp.sqrt(squares)


def wide_dtype(leaf: Array) -> jnp.dtype:
    """The dtype in which a leaf is clipped, summed and noised: float32, or float64 if it is."""
    return wide(leaf.dtype)


def _wide_leaves(gradients: Params) -> list[Array]:
    """All leaves in one dtype: float32, or float64 if any leaf is."""
    leaves = jax.tree.leaves(gradients)
    if not leaves:
        raise ValueError("The gradient tree has no leaves; give at least one trainable parameter.")
    widest = max((wide_dtype(leaf) for leaf in leaves), key=lambda dtype: dtype.itemsize)
    return [leaf.astype(widest) for leaf in leaves]


def _all_but_first(leaf: Array) -> tuple[int, ...]:
    """The axes of an array without its first."""
    return tuple(range(1, leaf.ndim))


def _like_rows(vector: Array, leaf: Array) -> Array:
    """Reshapes [B] to [B, 1, ...] so that it meets [B, ...] without implicit rank promotion."""
    return vector.reshape(vector.shape + (1,) * (leaf.ndim - 1))
