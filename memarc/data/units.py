"""Groups rows into units of privacy that have several: an input's references, or a person's rows.

A unit is one example: it is drawn as one and clipped as one, so adding or removing all of it moves
the clipped sum by one bound. Which of its rows are kept follows from the unit alone.

Axes: N rows, G units, R rows of a unit at most.
"""

import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from memarc.data.rows import Rows


def by_input(rows: Rows, most: int) -> tuple[Rows, np.ndarray]:
    """Groups rows of generation by input, and drops what is beyond the first R of each.

    Args:
      rows: N rows with columns (inputs, targets).
      most: R, a public constant of at least one.

    Returns:
      The rows that are kept, those of an input side by side, and int64[G, R]: the numbers of each
      input's rows among them, filled up with -1. Inputs are in order of first appearance.

    Raises:
      ValueError: If ``most`` is below one.
    """
    return _grouped(rows, rows.columns[0], range(len(rows)), most)


def by_person(rows: Rows, most: int) -> tuple[Rows, np.ndarray]:
    """Groups rows by person, and keeps the R of each whose hashes are smallest.

    The hashes are public and of the person and the row alone (`Rows.ranks`), so neither the rows
    of others nor the order of the file decides what is kept. Copies of a row count as rows: they
    are told apart by their number, so that a row with copies is as likely to be kept as others.

    Args:
      rows: N rows with the names of their people.
      most: R, a public constant of at least one.

    Returns:
      What `by_input` returns; the rows of a person are in the order of their hashes.

    Raises:
      ValueError: If ``most`` is below one, or the rows name no people.
    """
    if rows.users is None:
        raise ValueError("The rows name no people; give Rows users, one for each row.")
    return _grouped(rows, rows.users, rows.ranks(), most)


def _grouped(
    rows: Rows, owners: Sequence[Hashable], ranks: Sequence[Any], most: int
) -> tuple[Rows, np.ndarray]:
    """Groups rows by owner, and keeps those of the R lowest ranks."""
    if most < 1:
        raise ValueError(f"A unit keeps at most {most} rows; give at least 1.")
    found: dict[Hashable, list[int]] = {}
    for place, owner in enumerate(owners):
        found.setdefault(owner, []).append(place)
    kept = [sorted(places, key=ranks.__getitem__)[:most] for places in found.values()]
    sizes = np.array([len(places) for places in kept], np.int64)
    is_there = np.arange(most) < sizes[:, None]  # [G, R]
    members = np.full(is_there.shape, -1, np.int64)
    members[is_there] = np.arange(sizes.sum())
    return rows.take(np.array(list(itertools.chain.from_iterable(kept)), np.int64)), members
