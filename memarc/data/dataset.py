"""In-memory tokenized dataset: rows by index, as padded arrays of a few fixed shapes.

Axes: N rows, M tokens of all rows, n rows taken, P rows of a padded chunk, T tokens.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from memarc.data.tokenize import Encoded


class Examples(Protocol):
    """What ``padded_chunks`` must know of a data set."""

    @property
    def pad_id(self) -> int:
        """Id that fills up short rows."""
        ...

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def bucket_of(self, indices: np.ndarray, buckets: tuple[int, ...]) -> np.ndarray:
        """As ``Dataset.bucket_of``."""
        ...

    def take(self, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Arrays that lead with the examples; ``input_ids`` is among them."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Tokens and labels of N rows; one row is one example and one privacy unit.

    Attributes:
      encoded: Token ids of all rows.
      labels: int32[N].
      pad_id: Id that fills up short rows.
      max_length: The config's length cap; no row is longer.
    """

    encoded: Encoded
    labels: np.ndarray
    pad_id: int
    max_length: int

    def __post_init__(self):
        """Checks that the parts fit together and makes the arrays read-only."""
        rows = len(self.encoded.offsets) - 1
        if rows != len(self.labels):
            raise ValueError(f"{rows} token rows and {len(self.labels)} labels; make them equal.")
        longest = int(self.lengths.max(initial=0))
        if longest > self.max_length:
            raise ValueError(
                f"A row has {longest} tokens, max_length is {self.max_length}; truncate first."
            )
        encoded = self.encoded
        for array in (encoded.input_ids, encoded.token_type_ids, encoded.offsets, self.labels):
            array.setflags(write=False)

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row, int64[N]. Private."""
        return np.diff(self.encoded.offsets)

    @property
    def truncated_rows(self) -> int:
        """How many rows lost tokens to the length cap.

        Private: a count over the rows. Do not log or publish it for private data.
        """
        return self.encoded.truncated_rows

    @property
    def duplicate_rows(self) -> int:
        """How many rows repeat the tokens and the label of an earlier row.

        The unit is one row, so a person who owns duplicates is protected less. Private: a count
        over the rows.
        """
        seen = set()
        for i, label in enumerate(self.labels):
            part = slice(self.encoded.offsets[i], self.encoded.offsets[i + 1])
            ids, types = self.encoded.input_ids[part], self.encoded.token_type_ids[part]
            seen.add((ids.tobytes(), types.tobytes(), int(label)))
        return len(self) - len(seen)

    def fingerprint(self) -> str:
        """A hash of all rows in their order, for telling data sets apart. Private."""
        digest = hashlib.sha256()
        encoded = self.encoded
        for array in (encoded.input_ids, encoded.token_type_ids, encoded.offsets, self.labels):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def unordered_fingerprint(self) -> str:
        """A hash of all rows, equal in any order of them. Private."""
        encoded, total = self.encoded, 0
        for row in range(len(self)):
            begin, end = encoded.offsets[row : row + 2]
            digest = hashlib.sha256(encoded.input_ids[begin:end].tobytes())
            digest.update(encoded.token_type_ids[begin:end].tobytes())
            digest.update(self.labels[row].tobytes())
            total += int.from_bytes(digest.digest(), "little")
        return hashlib.sha256(f"{len(self)} {total}".encode()).hexdigest()

    def bucket_of(self, indices: np.ndarray, buckets: tuple[int, ...]) -> np.ndarray:
        """Position of the smallest bucket that holds each row, int64[n]. Private.

        Args:
          indices: int[n], row numbers.
          buckets: Increasing lengths; see ``check_buckets``.
        """
        check_buckets(buckets, self.max_length)
        return np.searchsorted(np.asarray(buckets), self.lengths[as_indices(indices, len(self))])

    def take(self, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Gathers rows, padded on the right.

        Args:
          indices: int[n], row numbers from 0 to N - 1, repeats allowed.
          length: T, at least the longest of these rows.

        Returns:
          ``input_ids``, ``attention_mask`` (1 token, 0 padding), ``token_type_ids``, each
          int32[n, T], and ``labels`` int32[n].

        Raises:
          ValueError: If an index is out of range or a row is longer than ``length``.
        """
        indices = as_indices(indices, len(self))
        sizes = self.lengths[indices][:, None]  # [n, 1]
        if sizes.max(initial=0) > length:
            raise ValueError(
                f"A row has more than length = {length} tokens; take it at the length of its "
                f"bucket or at max_length = {self.max_length}."
            )
        steps = np.arange(length)[None]  # [1, T]
        is_token = steps < sizes  # [n, T]
        places = np.where(is_token, self.encoded.offsets[indices][:, None] + steps, 0)  # [n, T]
        return {
            "input_ids": gather(self.encoded.input_ids, places, is_token, self.pad_id),
            "attention_mask": is_token.astype(np.int32),
            "token_type_ids": gather(self.encoded.token_type_ids, places, is_token, 0),
            "labels": self.labels[indices],
        }


def check_buckets(buckets: tuple[int, ...], max_length: int) -> None:
    """Checks that buckets are increasing whole numbers that end at the length cap.

    Args:
      buckets: Lengths fixed by config, never by the rows; one bucket means one fixed length.
      max_length: The length cap.

    Raises:
      ValueError: If they are not.
    """
    whole = isinstance(buckets, tuple) and all(type(bucket) is int for bucket in buckets)
    if not whole or not buckets or buckets[0] < 1 or buckets[-1] != max_length:
        raise ValueError(
            f"buckets is {buckets!r}; give a tuple of whole numbers that ends with max_length = "
            f"{max_length}; ({max_length},) pads every row to one length."
        )
    if any(low >= high for low, high in itertools.pairwise(buckets)):
        raise ValueError(f"buckets is {buckets!r}; give each length once, increasing.")


def padded_chunks(
    indices: np.ndarray, dataset: Examples, buckets: tuple[int, ...], rows: int
) -> Iterator[tuple[int, Mapping[str, np.ndarray], np.ndarray]]:
    """Cuts a draw of any size into batches of one fixed shape per bucket; drops nothing.

    Short buckets come first, and within one the rows keep the order of ``indices``. How many
    batches a bucket fills depends on private lengths: shapes are fixed, their counts are not. One
    bucket hides the lengths. An empty draw yields nothing.

    Args:
      indices: int[n], the numbers of the drawn rows (or groups of rows, if those are examples).
      dataset: Where they are.
      buckets: Increasing lengths; the last is the dataset's cap.
      rows: P, the rows of each batch.

    Yields:
      ``(length, batch, is_padding)``: the bucket T; what ``dataset.take`` gives with n = P; and
      bool[P], True for rows that only fill up (pad ids, and 0 in all other arrays).

    Raises:
      ValueError: If ``rows`` is below one, or buckets or indices do not fit the dataset.
    """
    if rows < 1:
        raise ValueError(f"rows is {rows}; give at least 1.")
    indices = as_indices(indices, len(dataset))
    bucket_of = dataset.bucket_of(indices, buckets)
    for place, length in enumerate(buckets):
        inside = indices[bucket_of == place]
        for start in range(0, len(inside), rows):
            chunk = inside[start : start + rows]
            batch = _pad_rows(dataset.take(chunk, length), rows - len(chunk), dataset.pad_id)
            yield length, batch, np.arange(rows) >= len(chunk)


def _pad_rows(batch, missing, pad_id):
    fills = {"input_ids": pad_id}
    return {
        name: np.pad(
            array,
            [(0, missing)] + [(0, 0)] * (array.ndim - 1),
            constant_values=fills.get(name, 0),
        )
        for name, array in batch.items()
    }


def gather(values: np.ndarray, places: np.ndarray, is_token: np.ndarray, fill: int) -> np.ndarray:
    """Looks up ``values`` at ``places`` where ``is_token``, else takes ``fill``; int32."""
    if not values.size:  # No row has a token, so there is nothing to look up.
        return np.full(places.shape, fill, np.int32)
    return np.where(is_token, values[places], np.int32(fill))


def as_indices(indices: np.ndarray, size: int) -> np.ndarray:
    """Checks row numbers.

    Args:
      indices: int[n]; an empty list is legal.
      size: Rows of the dataset.

    Returns:
      The same, as a vector of whole numbers.

    Raises:
      ValueError: If they are not whole numbers from 0 to ``size - 1``.
    """
    indices = np.asarray(indices)
    if indices.size == 0:
        return np.zeros(0, np.int64)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f"indices are {indices.dtype}{list(indices.shape)}; give a vector of whole numbers."
        )
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= size:
        raise ValueError(f"indices run from {low} to {high}; the dataset has rows 0 to {size - 1}.")
    return indices
