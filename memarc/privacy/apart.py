"""Checks, on public rows, that the losses of a batch do not depend on each other.

Clipping bounds what one example adds only if nothing else of the sum depends on that example. A
mean over the batch, a batch norm, or weights that are normalised over the batch break that in
silence, for every engine that takes the losses of a batch at once.

Axes: B batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memarc.typing import Array, Batch, LossFn, Params, Precompute, PyTree

_WHAT = "which breaks the bound of every clipped sum. Take each example's loss of it alone."


def check_apart(
    loss_fn: LossFn,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    *,
    precompute: Precompute | None = None,
) -> None:
    """Replaces the first of two rows and looks whether loss or gradient of the second moves.

    Args:
      loss_fn: ``(trainable, frozen, batch) -> losses [B]``.
      trainable: The parameters that are clipped.
      frozen: Everything else that the loss reads.
      batch: Two different public rows: the message says how they were treated. Arrays [2, ...].
      precompute: Optional ``(frozen, batch) -> batch``, as of the engines.

    Raises:
      ValueError: If there is not one loss a row, or the second row's loss or gradient depends on
        the first row, by as little as one bit.
    """

    def second(trainable: Params, frozen: Params, batch: Batch) -> PyTree:
        if precompute is not None:
            batch = jax.lax.stop_gradient(precompute(frozen, batch))
        losses, pullback = jax.vjp(lambda t: loss_fn(t, frozen, batch), trainable)
        check_shape(losses, 2)
        return losses[1], pullback(jnp.zeros_like(losses).at[1].set(1.0))[0]

    _compare("loss or gradient of a row", jax.jit(second), (trainable, frozen), batch)


def check_precompute_apart(precompute: Precompute, frozen: Params, batch: Batch) -> None:
    """Does as `check_apart` with what is computed ahead, for engines that take one row at a time.

    Raises:
      ValueError: If what is computed of the second row depends on the first.
    """

    def second(frozen: Params, batch: Batch) -> PyTree:
        return jax.tree.map(lambda x: x[1], precompute(frozen, batch))

    _compare("what is precomputed of a row", jax.jit(second), (frozen,), batch)


def check_shape(losses: Any, rows: int) -> None:
    """Raises ValueError unless there is one loss a row."""
    if losses.shape != (rows,):
        raise ValueError(
            f"loss_fn gave shape {losses.shape} for a batch of {rows} rows; return one loss per "
            "example, shape (B,), not a mean over the batch."
        )


def random_rows(abstract: PyTree, seed: int = 0) -> PyTree:
    """Draws two rows in the shapes of a batch: whole numbers are 0 or 1, which are ids of any kind.

    Args:
      abstract: Arrays or shapes [B, ...].
      seed: Of the draw; it is public, as are the rows.
    """
    rng = np.random.default_rng(seed)

    def draw(x: Any) -> np.ndarray:
        shape = (2, *x.shape[1:])
        if jnp.issubdtype(x.dtype, jnp.floating):
            return rng.standard_normal(shape).astype(x.dtype)
        return rng.integers(0, 2, shape).astype(x.dtype)

    return jax.tree.map(draw, abstract)


def _compare(what: str, second: Any, parameters: tuple[Params, ...], batch: Batch) -> None:
    """Runs a program on two rows and on the second row twice; it must not tell the difference."""
    same = jax.tree.map(lambda x: np.stack([np.asarray(x)[1]] * 2), batch)
    # Compared where they lie: gradients may be large, and on devices of other processes.
    found = jax.jit(_differences)(second(*parameters, batch), second(*parameters, same))
    differs = [bool(x) for x in jax.device_get(found)]
    if any(differs):
        raise ValueError(
            f"The loss couples examples: another row in the batch changes {what} ({sum(differs)} "
            f"of {len(differs)} arrays, on public rows), {_WHAT}"
        )


def _differences(first: PyTree, again: PyTree) -> list[Array]:
    """For each leaf whether a value differs; what is no number is equal to its like."""

    def differs(a: Array, b: Array) -> Array:
        return jnp.any((a != b) & ~((a != a) & (b != b)))

    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True)
    return [differs(a, b) for a, b in pairs]
