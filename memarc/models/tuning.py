"""What a tuning method is: how parameters split, what needs no gradient, what the head reads."""

import dataclasses
from collections.abc import Callable

from memarc.typing import Array, Batch, Params, Precompute

COINS = "coins"
"""Name, within a batch, of two fresh random words for each row, uint32[B, 2]."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """One way to tune a backbone, as three pure functions.

    Attributes:
      init: ``(key, backbone_params) -> (trainable, frozen)``. Reads public weights only; it is
        given no data, so no start can depend on private rows (checklist 30).
      states: ``(trainable, frozen, batch) -> [B, T, D]``, the states that the head reads; the
        batch has been through ``precompute``.
      precompute: ``(frozen, batch) -> batch``, the part of the forward pass that no gradient
        crosses. It runs batched, outside differentiation.
      check: None, or ``(trainable, frozen, batch)``: raises ValueError if the network cannot work
        on a public batch, which has been through ``precompute``. It must never see a private one:
        raising would reveal it.
      needs_coins: Whether training batches must hold `COINS`; others never do.
    """

    init: Callable[[Array, Params], tuple[Params, Params]]
    states: Callable[[Params, Params, Batch], Array]
    precompute: Precompute
    check: Callable[[Params, Params, Batch], None] | None = None
    needs_coins: bool = False
