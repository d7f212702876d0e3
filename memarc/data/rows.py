"""Rows of text held in memory, column by column.

Axes: N rows.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Texts of one file or stream, with their labels where they have any.

    Attributes:
      columns: One sequence of N strings per text field of the task: one or two texts that are
        classified, or the inputs and the targets of generation, where an input recurs in each of
        its rows.
      labels: int32[N], positions in the task's tuple of labels; float32[N] in regression, shares
        of the declared range; None in generation.
    """

    columns: tuple[Sequence[str], ...]
    labels: np.ndarray | None

    def __post_init__(self) -> None:
        """Checks that all columns, and the labels, have as many rows."""
        sizes = [len(column) for column in self.columns]
        labelled = [] if self.labels is None else [len(self.labels)]
        if not sizes or len({*sizes, *labelled}) > 1:
            told = "".join(f", labels {size}" for size in labelled)
            raise ValueError(f"Columns have {sizes} rows{told}; make them equal.")

    def __len__(self) -> int:
        """N."""
        return len(self.columns[0])

    def fingerprint(self) -> str:
        """A hash of all rows, equal in any order of them. Private."""
        labels = [None] * len(self) if self.labels is None else self.labels.tolist()
        total = 0
        for *texts, label in zip(*self.columns, labels, strict=True):
            row = hashlib.sha256(json.dumps([texts, label]).encode())
            total += int.from_bytes(row.digest(), "little")
        return hashlib.sha256(f"{len(self)} {total}".encode()).hexdigest()

    def take(self, indices: np.ndarray) -> "Rows":
        """The rows at ``indices`` (int[n]), in that order."""
        places: list[int] = indices.tolist()
        return Rows(
            columns=tuple([column[i] for i in places] for column in self.columns),
            labels=None if self.labels is None else self.labels[indices],
        )
