"""Groups the rows of generation by input: the references of each input, and examples of several.

Axes: N rows, G distinct inputs, R references of an input at most.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from memarc.data.rows import Rows


def references(rows: Rows) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Collects the references of each input, wherever in the rows they are.

    Args:
      rows: N rows with columns (inputs, targets).

    Returns:
      G distinct inputs in order of first appearance, and each one's references in the rows' order.
    """
    inputs, targets = rows.columns
    found: dict[str, list[str]] = {}
    for text, target in zip(inputs, targets, strict=True):
        found.setdefault(text, []).append(target)
    return tuple(found), tuple(tuple(texts) for texts in found.values())


def flatten(inputs: Sequence[str], targets: Sequence[Sequence[str]]) -> Rows:
    """Undoes ``references``: one row per reference, those of an input side by side."""
    repeated = [text for text, found in zip(inputs, targets, strict=True) for _ in found]
    return Rows(columns=(repeated, list(itertools.chain.from_iterable(targets))), labels=None)


def group(rows: Rows, references_per_group: int) -> tuple[Rows, np.ndarray]:
    """Groups rows by input and drops what is beyond the first R references of each.

    Args:
      rows: N rows with columns (inputs, targets).
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
