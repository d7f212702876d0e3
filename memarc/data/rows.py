"""Labelled text rows held in memory, column by column.

Axes: N rows.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Texts and labels of one file or stream; row i is one privacy unit.

    Attributes:
      columns: One sequence of N strings per text field of the task (one or two).
      labels: int32[N], positions in the task's tuple of labels.
    """

    columns: tuple[Sequence[str], ...]
    labels: np.ndarray

    def __post_init__(self):
        """Checks that all columns have as many rows as there are labels."""
        sizes = [len(column) for column in self.columns]
        if not sizes or any(size != len(self.labels) for size in sizes):
            raise ValueError(
                f"Columns have {sizes} rows, labels {len(self.labels)}; make them equal."
            )

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[tuple[str, ...], int]:
        """The texts and the label of one row, by position."""
        return tuple(column[index] for column in self.columns), int(self.labels[index])

    def take(self, indices: np.ndarray) -> "Rows":
        """The rows at ``indices`` (int[n]), in that order."""
        places: list[int] = indices.tolist()
        columns = tuple([column[i] for i in places] for column in self.columns)
        return Rows(columns=columns, labels=self.labels[indices])
