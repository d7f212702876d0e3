"""Collects the references of each input of generation, and undoes it.

Axes: N rows, G distinct inputs.
"""

import itertools
from collections.abc import Sequence

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
