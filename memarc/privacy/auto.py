"""Chooses among equal engines: the least memory times work, both of which users pay for."""

import dataclasses
from collections.abc import Callable, Sequence

CANDIDATES = ("vmap", "ghost", "book_keeping")
"""Engines worth comparing; ``loop`` is an oracle, never the cheapest."""

AUTO = "auto"
"""The name by which a config asks for the choice."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one engine takes for one step.

    Attributes:
      engine: The engine's name.
      own_bytes: The compiled program's peak of memory without its arguments, such as weights, which
        every engine has (`memarc.ops.compiled.own_bytes`). None means that the program does not
        fit the device.
      flops: The work of the program's matrix products (`memarc.ops.flops`).
    """

    engine: str
    own_bytes: int | None
    flops: int


def choose(engines: Sequence[str], cost_of: Callable[[str], Cost | None]) -> Cost:
    """Compares engines and gives the cost of the best one.

    An engine that fits the device comes before one that does not. Among those that fit, the choice
    is the smallest product of own bytes and work: more work is taken where it saves more than its
    share of memory, and a tie goes to less work. Where no engine fits, the choice is the least
    work.

    Args:
      engines: Names of engines, such as `CANDIDATES`.
      cost_of: Gives an engine's cost, or None where the loss does not take the engine's taps. The
        function is called once for each engine.

    Returns:
      The cost of the chosen engine.

    Raises:
      ValueError: If no engine has a cost.

    >>> costs = {"vmap": Cost("vmap", 900, 100), "ghost": Cost("ghost", 400, 180)}
    >>> choose(tuple(costs), costs.get).engine
    'ghost'
    """
    costs = [cost for engine in engines if (cost := cost_of(engine)) is not None]
    if not costs:
        raise ValueError(
            f"There is no engine to choose from: none of {tuple(engines)} takes this loss. Give an "
            "engine by name."
        )
    fitting = [(cost.own_bytes, cost) for cost in costs if cost.own_bytes is not None]
    if not fitting:
        return min(costs, key=lambda cost: cost.flops)
    return min(fitting, key=lambda pair: (max(1, pair[0]) * pair[1].flops, pair[1].flops))[1]
