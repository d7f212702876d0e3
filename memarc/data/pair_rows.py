"""Pairs of an input and a reference text held in memory, and the same grouped by input.

Axes: N rows, G distinct inputs, R references of an input at most.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class PairRows:
    """Inputs and references of one file or stream; a row is one reference beside its input.

    Attributes:
      inputs: N strings; an input recurs in each of its rows.
      targets: N strings, the references.
    """

    inputs: Sequence[str]
    targets: Sequence[str]

    def __post_init__(self):
        """Checks that there are as many inputs as references."""
        if len(self.inputs) != len(self.targets):
            raise ValueError(
                f"{len(self.inputs)} inputs and {len(self.targets)} targets; make them equal."
            )

    def __len__(self) -> int:
        """N."""
        return len(self.targets)


def references(rows: PairRows) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Collects the references of each input, wherever in the rows they are.

    Args:
      rows: N rows.

    Returns:
      G distinct inputs in order of first appearance, and each one's references in the rows' order.
    """
    found: dict[str, list[str]] = {}
    for text, target in zip(rows.inputs, rows.targets, strict=True):
        found.setdefault(text, []).append(target)
    return tuple(found), tuple(tuple(targets) for targets in found.values())


def flatten(inputs: Sequence[str], targets: Sequence[Sequence[str]]) -> PairRows:
    """Undoes ``references``: one row per reference, those of an input side by side."""
    return PairRows(
        inputs=[text for text, found in zip(inputs, targets, strict=True) for _ in found],
        targets=list(itertools.chain.from_iterable(targets)),
    )


def group(rows: PairRows, references_per_group: int) -> tuple[PairRows, np.ndarray]:
    """Groups rows by input and drops what is beyond the first R references of each.

    Args:
      rows: N rows.
      references_per_group: R, a public constant of at least one.

    Returns:
      The rows that are kept, those of an input side by side, and int64[G, R]: the numbers of each
      input's rows among them, filled up with -1.

    Raises:
      ValueError: If ``references_per_group`` is below one.
    """
    if references_per_group < 1:
        raise ValueError(f"references_per_group is {references_per_group}; give at least 1.")
    inputs, found = references(rows)
    kept = [targets[:references_per_group] for targets in found]
    sizes = np.array([len(targets) for targets in kept], np.int64)
    is_there = np.arange(references_per_group) < sizes[:, None]  # [G, R]
    members = np.full(is_there.shape, -1, np.int64)
    members[is_there] = np.arange(sizes.sum())
    return flatten(inputs, kept), members
