"""In-memory tokenized pairs: examples by index, each one row or one group of rows.

Axes: N examples, n examples taken, R rows of a group at most, M rows in all, T tokens.
"""

import dataclasses
import hashlib

import numpy as np

from memarc.data.dataset import as_indices, check_buckets, gather
from memarc.data.prompts import EncodedPairs


@dataclasses.dataclass(frozen=True, eq=False)
class PairDataset:
    """Tokens of N examples; one example is one privacy unit.

    Attributes:
      encoded: Token ids of all rows.
      members: Rows of each example: int64[N] if each is one row, or int64[N, R], filled up with
        -1. Every row belongs to exactly one example.
      pad_id: Id that fills up short rows.
      max_length: The config's length cap; no row is longer.
    """

    encoded: EncodedPairs
    members: np.ndarray
    pad_id: int
    max_length: int

    def __post_init__(self):
        """Checks that the parts fit together and makes the arrays read-only."""
        encoded, members = self.encoded, self.members
        rows = len(encoded.offsets) - 1
        is_row = members >= 0
        names_all = np.array_equal(np.sort(members[is_row]), np.arange(rows))
        if members.ndim not in (1, 2) or not names_all or not _any_in_example(is_row).all():
            raise ValueError(
                f"members are {members.dtype}{list(members.shape)} of {rows} rows; give each row "
                "to exactly one example and each example a row."
            )
        longest = int(np.diff(encoded.offsets).max(initial=0))
        if longest > self.max_length:
            raise ValueError(
                f"A row has {longest} tokens, max_length is {self.max_length}; truncate first."
            )
        for array in (encoded.input_ids, encoded.offsets, encoded.prompt_lengths, members):
            array.setflags(write=False)

    def __len__(self) -> int:
        """N."""
        return len(self.members)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each example's longest row, int64[N]. Private."""
        sizes = self._sizes(self.members)
        return sizes.max(axis=tuple(range(1, sizes.ndim)))

    @property
    def truncated_rows(self) -> int:
        """How many rows lost tokens to a cap.

        Private: a count over the rows. Do not log or publish it for private data.
        """
        return self.encoded.truncated_rows

    def fingerprint(self) -> str:
        """A hash of all examples in their order, for telling data sets apart. Private."""
        digest = hashlib.sha256(str(self.members.shape).encode())
        encoded = self.encoded
        for array in (encoded.input_ids, encoded.offsets, encoded.prompt_lengths, self.members):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def unordered_fingerprint(self) -> str:
        """A hash of all examples, equal in any order of them; their rows keep theirs. Private."""
        encoded, total = self.encoded, 0
        for rows in self.members:
            digest = hashlib.sha256()
            for row in np.atleast_1d(rows)[np.atleast_1d(rows) >= 0]:
                ids = encoded.input_ids[encoded.offsets[row] : encoded.offsets[row + 1]]
                digest.update(f"{len(ids)} {encoded.prompt_lengths[row]} ".encode())
                digest.update(ids.tobytes())
            total += int.from_bytes(digest.digest(), "little")
        return hashlib.sha256(f"{self.members.shape} {total}".encode()).hexdigest()

    def bucket_of(self, indices: np.ndarray, buckets: tuple[int, ...]) -> np.ndarray:
        """Position of the smallest bucket that holds all rows of each example, int64[n]. Private.

        Args:
          indices: int[n], numbers of examples.
          buckets: Increasing lengths; see ``dataset.check_buckets``.
        """
        check_buckets(buckets, self.max_length)
        return np.searchsorted(np.asarray(buckets), self.lengths[as_indices(indices, len(self))])

    def take(self, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Gathers examples, padded on the right.

        Args:
          indices: int[n], numbers of examples from 0 to N - 1, repeats allowed.
          length: T, at least the longest of their rows.

        Returns:
          ``input_ids``, ``attention_mask`` (1 token, 0 padding) and ``is_target`` (1 at tokens of
          the target, its end included), each int32[n, T], or int32[n, R, T] of groups; a reference
          that is not there has 0 in both masks throughout.

        Raises:
          ValueError: If an index is out of range or a row is longer than ``length``.
        """
        rows = self.members[as_indices(indices, len(self))][..., None]  # [n, 1] or [n, R, 1]
        sizes = self._sizes(rows)
        if sizes.max(initial=0) > length:
            raise ValueError(
                f"A row has more than length = {length} tokens; take it at the length of its "
                f"bucket or at max_length = {self.max_length}."
            )
        steps = np.arange(length)  # [T]
        is_token = steps < sizes  # [n, T] or [n, R, T]
        is_target = is_token & (steps >= self.encoded.prompt_lengths[rows])
        places = np.where(is_token, self.encoded.offsets[rows] + steps, 0)
        return {
            "input_ids": gather(self.encoded.input_ids, places, is_token, self.pad_id),
            "attention_mask": is_token.astype(np.int32),
            "is_target": is_target.astype(np.int32),
        }

    def _sizes(self, rows):
        """Tokens of rows at any number of axes; 0 where there is none."""
        return np.where(rows < 0, 0, np.diff(self.encoded.offsets)[rows])


def _any_in_example(values):
    return values.any(axis=tuple(range(1, values.ndim)))
