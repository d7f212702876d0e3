"""Chooses among equal engines: the least memory within a stated factor of the least work."""

import dataclasses
from collections.abc import Sequence

CANDIDATES = ("vmap", "ghost", "book_keeping")
"""Engines worth comparing; ``loop`` is an oracle, never the cheapest."""

AUTO = "auto"
"""The name by which a config asks for the choice."""

WORK_FACTOR = 1.5
"""An engine that multiplies more than this over the least is not chosen, whatever it saves."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one engine takes for one step.

    Attributes:
      engine: Its name.
      peak_bytes: Of the compiled program; None if it does not fit the device.
      flops: Of its matrix products (`memarc.ops.flops`).
    """

    engine: str
    peak_bytes: int | None
    flops: int


def cheapest(costs: Sequence[Cost]) -> Cost:
    """The cost with the smallest peak among those within `WORK_FACTOR`; ties go to less work.

    Where no engine fits the device, the one with the least work is returned.

    Raises:
      ValueError: If there is no cost at all.
    """
    if not costs:
        raise ValueError("There is no engine to choose from.")
    least = min(cost.flops for cost in costs)
    affordable = [cost for cost in costs if cost.flops <= WORK_FACTOR * least]
    return min(affordable, key=lambda cost: (_bytes(cost), cost.flops))


def _bytes(cost: Cost) -> float:
    return float("inf") if cost.peak_bytes is None else cost.peak_bytes
