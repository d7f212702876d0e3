"""In-memory tokenized dataset: examples by number, as padded arrays of a few fixed shapes.

Axes: N examples, R rows of an example that has several, M tokens of all rows, n examples taken,
P examples of a padded chunk, T tokens.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from memarc import batches
from memarc.batches import ATTENTION_MASK, INPUT_IDS, LABELS
from memarc.data.tokenize import Encoded


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Tokens of N examples of any kind of task; one example is one privacy unit.

    Attributes:
      encoded: Tokens of all rows.
      labels: int32[rows] in classification, float32[rows] in regression, None in generation.
      members: Numbers of each example's rows: int64[N] where each is one row, or int64[N, R],
        filled up with -1. Every row belongs to exactly one example. None where row i is example i.
      pad_id: Id that fills up short rows.
      max_length: The config's length cap; no row is longer.
    """

    encoded: Encoded
    labels: np.ndarray | None
    members: np.ndarray | None
    pad_id: int
    max_length: int

    def __post_init__(self) -> None:
        """Checks that the parts fit together and makes the arrays read-only."""
        encoded = self.encoded
        _check_kind(self.kind, encoded, self.labels)
        if self.members is not None:
            _check_members(self.members, len(encoded.offsets) - 1)
        longest = int(np.diff(encoded.offsets).max(initial=0))
        if longest > self.max_length:
            raise ValueError(
                f"A row has {longest} tokens, max_length is {self.max_length}; truncate first."
            )
        for array in (*encoded.tokens.values(), encoded.offsets, self.labels, self.members):
            if array is not None:
                array.setflags(write=False)

    def __len__(self) -> int:
        """N."""
        return len(self.encoded.offsets) - 1 if self.members is None else len(self.members)

    @property
    def kind(self) -> str:
        """One of ``memarc.batches.KINDS``."""
        if batches.IS_TARGET in self.encoded.tokens:
            return batches.GENERATION
        is_number = self.labels is not None and self.labels.dtype.kind == "f"
        return batches.REGRESSION if is_number else batches.CLASSIFICATION

    @property
    def group(self) -> tuple[int, ...]:
        """() where each example is one row, or (R,)."""
        return () if self.members is None else self.members.shape[1:]

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each example's longest row, int64[N]. Private."""
        return self._lengths(np.arange(len(self)))

    @property
    def truncated_rows(self) -> int:
        """How many rows lost tokens to a cap.

        Private: a count over the rows. Do not log or publish it for private data.
        """
        return self.encoded.truncated_rows

    def fingerprint(self) -> str:
        """A hash of all examples in their order, for telling data sets apart. Private."""
        digest = hashlib.sha256(self._layout.encode())
        rows = self._rows(np.arange(len(self)))
        for array in (*self.encoded.tokens.values(), self.encoded.offsets, self.labels, rows):
            if array is not None:
                digest.update(array.tobytes())
        return digest.hexdigest()

    def bucket_of(self, indices: np.ndarray, buckets: tuple[int, ...]) -> np.ndarray:
        """Position of the smallest bucket that holds all rows of each example, int64[n]. Private.

        Args:
          indices: int[n], numbers of examples.
          buckets: Increasing lengths; see ``check_buckets``.
        """
        check_buckets(buckets, self.max_length)
        return np.searchsorted(np.asarray(buckets), self._lengths(indices))

    def take(self, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Gathers examples, padded on the right.

        Args:
          indices: int[n], numbers of examples from 0 to N - 1, repeats allowed.
          length: T, at least the longest of their rows.

        Returns:
          A batch of ``memarc.batches``: its keys per token, each int32[n, T], or int32[n, R, T] of
          examples of several rows, and labels [n] or [n, R] of kinds that have them. A row that an
          example lacks is padding throughout, with label 0.

        Raises:
          ValueError: If a number is out of range or a row is longer than ``length``.
        """
        rows = self._rows(indices)  # [n] or [n, R]
        sizes = self._sizes(rows)[..., None]  # [n, 1] or [n, R, 1]
        if sizes.max(initial=0) > length:
            raise ValueError(
                f"A row has more than length = {length} tokens; take it at the length of its "
                f"bucket or at max_length = {self.max_length}."
            )
        steps = np.arange(length)  # [T]
        is_token = steps < sizes  # [n, T] or [n, R, T]
        places = np.where(is_token, self.encoded.offsets[rows][..., None] + steps, 0)
        batch = {
            key: _gather(values, places, is_token, self.pad_id if key == INPUT_IDS else 0)
            for key, values in self.encoded.tokens.items()
        }
        batch[ATTENTION_MASK] = is_token.astype(np.int32)
        if self.labels is not None:
            batch[LABELS] = np.where(rows < 0, self.labels.dtype.type(0), self.labels[rows])
        return batch

    def abstract(self, rows: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a batch of ``rows`` examples of ``length`` tokens, as ``take`` gives it."""
        return batches.abstract(self.kind, rows, length, self.group)

    @property
    def _layout(self) -> str:
        """What fingerprints hold beside the values."""
        numbers = " of numbers" if self.kind == batches.REGRESSION else ""
        return f"{self.group} {list(self.encoded.tokens)}{numbers}"

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        """Numbers of the rows of examples, int64[n] or int64[n, R]; -1 where there is none."""
        indices = _checked(indices, len(self))
        return indices if self.members is None else self.members[indices]

    def _sizes(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of rows at any number of axes; 0 where there is none."""
        return np.where(rows < 0, 0, self.encoded.offsets[rows + 1] - self.encoded.offsets[rows])

    def _lengths(self, indices: np.ndarray) -> np.ndarray:
        """Tokens of the longest row of each example at ``indices``, int64[n]."""
        sizes = self._sizes(self._rows(indices))  # [n] or [n, R]
        return sizes.max(axis=tuple(range(1, sizes.ndim)))


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
    indices: np.ndarray, dataset: Dataset, buckets: tuple[int, ...], rows: int
) -> Iterator[tuple[int, Mapping[str, np.ndarray], np.ndarray]]:
    """Cuts a draw of any size into batches of one fixed shape per bucket; drops nothing.

    Short buckets come first, and within one the examples keep the order of ``indices``. How many
    batches a bucket fills depends on private lengths: shapes are fixed, their counts are not. One
    bucket hides the lengths. An empty draw yields nothing.

    Args:
      indices: int[n], the numbers of the drawn examples.
      dataset: Where they are.
      buckets: Increasing lengths; the last is the dataset's cap.
      rows: P, the examples of each batch.

    Yields:
      ``(length, batch, is_padding)``: the bucket T; what ``dataset.take`` gives with n = P; and
      bool[P], True for examples that only fill up (pad ids, and 0 in all other arrays).

    Raises:
      ValueError: If ``rows`` is below one, or buckets or indices do not fit the dataset.
    """
    if rows < 1:
        raise ValueError(f"rows is {rows}; give at least 1.")
    indices = _checked(indices, len(dataset))
    bucket_of = dataset.bucket_of(indices, buckets)
    for place, length in enumerate(buckets):
        inside = indices[bucket_of == place]
        for start in range(0, len(inside), rows):
            chunk = inside[start : start + rows]
            batch = _pad_rows(dataset.take(chunk, length), rows - len(chunk), dataset.pad_id)
            yield length, batch, np.arange(rows) >= len(chunk)


def _pad_rows(batch: Mapping[str, np.ndarray], missing: int, pad_id: int) -> dict[str, np.ndarray]:
    """The batch with ``missing`` examples of padding after its own."""
    return {
        key: np.pad(
            array,
            [(0, missing)] + [(0, 0)] * (array.ndim - 1),
            constant_values=pad_id if key == INPUT_IDS else 0,
        )
        for key, array in batch.items()
    }


def _gather(values: np.ndarray, places: np.ndarray, is_token: np.ndarray, fill: int) -> np.ndarray:
    """Looks up ``values`` at ``places`` where ``is_token``, else takes ``fill``; int32."""
    if not values.size:  # No row has a token, so there is nothing to look up.
        return np.full(places.shape, fill, np.int32)
    return np.where(is_token, values[places], np.int32(fill))


def _check_kind(kind: str, encoded: Encoded, labels: np.ndarray | None) -> None:
    """Raises ValueError unless tokens and labels are those of the kind of task."""
    rows = len(encoded.offsets) - 1
    if {*encoded.tokens, ATTENTION_MASK} != set(batches.PER_TOKEN[kind]):
        raise ValueError(
            f"Tokens have the keys {list(encoded.tokens)}; those of {kind} are "
            f"{[key for key in batches.PER_TOKEN[kind] if key != ATTENTION_MASK]}."
        )
    if (labels is not None) != (kind in batches.LABEL_DTYPES):
        state = "no labels" if labels is None else "labels"
        raise ValueError(f"A dataset of {kind} has {state}; only classification has them.")
    if labels is not None and rows != len(labels):
        raise ValueError(f"{rows} token rows and {len(labels)} labels; make them equal.")


def _check_members(members: np.ndarray, rows: int) -> None:
    """Raises ValueError unless each row is in one example, and each example has one."""
    is_row = members >= 0
    names_all = np.array_equal(np.sort(members[is_row]), np.arange(rows))
    has_row = is_row.any(axis=tuple(range(1, members.ndim)))
    if members.ndim not in (1, 2) or not names_all or not has_row.all():
        raise ValueError(
            f"members are {members.dtype}{list(members.shape)} of {rows} rows; give each row "
            "to exactly one example and each example a row."
        )


def _checked(indices: np.ndarray, size: int) -> np.ndarray:
    """Numbers of examples as a vector of whole numbers; an empty list is legal.

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
        raise ValueError(
            f"indices run from {low} to {high}; the dataset has examples 0 to {size - 1}."
        )
    return indices
