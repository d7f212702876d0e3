"""Rows of text held in memory, column by column.

Axes: N rows.
"""

import collections
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
      users: The name of the person whose each row is; None where nothing says so.
    """

    columns: tuple[Sequence[str], ...]
    labels: np.ndarray | None
    users: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Checks that all columns, the labels and the people have as many rows."""
        sizes = [len(column) for column in self.columns]
        beside = {"labels": self.labels, "users": self.users}
        others = {name: len(x) for name, x in beside.items() if x is not None}
        if not sizes or len({*sizes, *others.values()}) > 1:
            told = "".join(f", {name} {size}" for name, size in others.items())
            raise ValueError(f"Columns have {sizes} rows{told}; make them equal.")

    def __len__(self) -> int:
        """N."""
        return len(self.columns[0])

    def fingerprint(self) -> str:
        """A hash of all rows and whose they are, equal in any order of them. Private."""
        total = sum(int.from_bytes(digest, "little") for digest in self._digests())
        return hashlib.sha256(f"{len(self)} {total}".encode()).hexdigest()

    def ranks(self) -> list[bytes]:
        """A hash of each row, its person's name, and how many copies of it came before. Private.

        The hashes of one person's rows are the same whatever the rows of others are, and in any
        order of the rows.
        """
        copies: collections.Counter[bytes] = collections.Counter()
        found = []
        for digest in self._digests():
            copies[digest] += 1
            found.append(hashlib.sha256(digest + str(copies[digest]).encode()).digest())
        return found

    def _digests(self) -> list[bytes]:
        """A hash of each row and of its person's name."""
        labels = [None] * len(self) if self.labels is None else self.labels.tolist()
        owners = [()] * len(self) if self.users is None else [(user,) for user in self.users]
        return [
            hashlib.sha256(json.dumps([texts, label, *owner]).encode()).digest()
            for *texts, label, owner in zip(*self.columns, labels, owners, strict=True)
        ]

    def take(self, indices: np.ndarray) -> "Rows":
        """The rows at ``indices`` (int[n]), in that order."""
        places: list[int] = indices.tolist()
        return Rows(
            columns=tuple([column[i] for i in places] for column in self.columns),
            labels=None if self.labels is None else self.labels[indices],
            users=None if self.users is None else [self.users[i] for i in places],
        )
