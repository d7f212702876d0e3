"""Sums clipped per-example gradients of a batch by one of several equal engines.

Axes: B batch, M microbatches, m microbatch size.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memarc.privacy import row_engines, summation, tap_engines
from memarc.privacy.clipping import Clipping
from memarc.privacy.summation import CompensatedSum
from memarc.typing import Array, Batch, LossFn, Params, Precompute, Summed

Aux = dict[str, Array]

MicrobatchEngine = Callable[[LossFn, Params, Params, Batch, Array, Clipping], Summed]
"""``(loss_fn, trainable, frozen, microbatch, is_padding[m], clipping) -> Summed``, m for B."""


def clipped_grad_sum(
    loss_fn: LossFn,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    is_padding: Array,
    *,
    clipping: Clipping,
    engine: str,
    microbatch_size: int,
    precompute: Precompute | None = None,
) -> tuple[Params, Aux]:
    """Sums per-example gradients after bounding each one's L2 norm over all of ``trainable``.

    The sum's L2 sensitivity to adding or removing one example is ``clipping.sensitivity``. Rows
    that are padding, or whose loss or gradient is not finite, add exactly zero. The result does
    not depend on engine or microbatch size beyond float32 rounding.

    Args:
      loss_fn: ``(trainable, frozen, batch) -> losses``, leading axis B, nothing couples examples.
      trainable: Exactly the parameters that are clipped, noised and updated.
      frozen: Everything else that the loss reads; gets no gradient.
      batch: Arrays that all lead with B.
      is_padding: bool[B].
      clipping: The rule and its bound.
      engine: A name in ``ENGINES``.
      microbatch_size: Rows differentiated at once, 1 to B; need not divide B. Memory only.
      precompute: Optional ``(frozen, batch) -> batch`` that needs no gradient (a frozen backbone);
        runs batched, once per microbatch, outside differentiation.

    Returns:
      The sum, shaped like ``trainable``, in float32 (float64 if a gradient is), and the private
      ``norms`` (before clipping, gradient units) and ``losses`` (nats), each [B], zero for rows
      that add nothing.

    Raises:
      ValueError: If the engine is unknown, or the shapes or ``microbatch_size`` disagree.

    Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1, without noise and division.
    """
    total, aux = add_clipped(
        summation.zero(trainable),
        loss_fn,
        trainable,
        frozen,
        batch,
        is_padding,
        clipping=clipping,
        engine=engine,
        microbatch_size=microbatch_size,
        precompute=precompute,
    )
    return total.value, aux


def add_clipped(
    total: CompensatedSum,
    loss_fn: LossFn,
    trainable: Params,
    frozen: Params,
    batch: Batch,
    is_padding: Array,
    *,
    clipping: Clipping,
    engine: str,
    microbatch_size: int,
    precompute: Precompute | None = None,
) -> tuple[CompensatedSum, Aux]:
    """Adds the sum of `clipped_grad_sum` to one that is there, a microbatch at a time."""
    check_engine(engine)
    size = _batch_size(batch, is_padding)
    if not 1 <= microbatch_size <= size:
        raise ValueError(f"microbatch_size is {microbatch_size}; give 1 to {size}, the batch size.")

    def add_microbatch(
        total: CompensatedSum, given: tuple[Batch, Array]
    ) -> tuple[CompensatedSum, tuple[Array, Array]]:
        rows, is_row_padding = given
        if precompute is not None:
            rows = jax.lax.stop_gradient(precompute(frozen, rows))
        grad_sum, norms, losses = ENGINES[engine](
            loss_fn, trainable, frozen, rows, is_row_padding, clipping
        )
        return summation.add(total, grad_sum), (norms, losses)

    if microbatch_size == size:
        total, (norms, losses) = add_microbatch(total, (batch, is_padding))
        return total, {"norms": norms, "losses": losses}
    stacked = _split((batch, is_padding), microbatch_size)
    total, (norms, losses) = jax.lax.scan(add_microbatch, total, stacked)
    return total, {"norms": norms.reshape(-1)[:size], "losses": losses.reshape(-1)[:size]}


ENGINES: dict[str, MicrobatchEngine] = {
    "loop": row_engines.loop,
    "vmap": row_engines.vmap,
    "ghost": tap_engines.ghost,
    "book_keeping": tap_engines.book_keeping,
}


ROW_BY_ROW = ("loop", "vmap")
"""Engines that show the loss one example at a time, so that it cannot couple any."""


def check_engine(name: str, *others: str) -> None:
    """Raises ValueError unless a name is one of `ENGINES`, or of other choices that stand there."""
    choices = (*others, *ENGINES)
    if name not in choices:
        raise ValueError(f"Unknown engine {name!r}; choose one of {choices}.")


def _batch_size(batch: Batch, is_padding: Array) -> int:
    """The leading axis that all arrays share."""
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(batch)}
    if is_padding.ndim != 1 or is_padding.dtype != jnp.bool_ or sizes != {is_padding.shape}:
        raise ValueError(
            f"is_padding is {is_padding.dtype}{is_padding.shape} and the batch's leading axes are "
            f"{sorted(sizes)}; give bool[B] and arrays that all lead with the same B."
        )
    return is_padding.shape[0]


def _split(rows: tuple[Batch, Array], microbatch_size: int) -> Any:
    """Reshapes leaves [B, ...] to [M, m, ...]; rows added to fill the last one are padding."""
    batch, is_padding = rows
    missing = -is_padding.shape[0] % microbatch_size

    def split(leaf: Array, fill: int | bool) -> Array:
        widths = [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)
        filled = jnp.pad(leaf, widths, constant_values=fill) if missing else leaf
        return filled.reshape((-1, microbatch_size, *leaf.shape[1:]))

    return jax.tree.map(lambda leaf: split(leaf, 0), batch), split(is_padding, True)
