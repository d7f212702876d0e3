"""Reads the header of a GGUF file: what it says of the model, and where its tensors lie.

The format is that of ggml's specification, versions 2 and 3, little-endian. Weights and tokenizers
both need it, so that it stands beside the packages.
"""

import dataclasses
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memarc import paths

SUFFIX = ".gguf"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = "general.alignment"
_FLOAT32, _BOOL, _STRING, _ARRAY = 6, 7, 8, 9  # Numbers of types of values.
_SCALARS = {  # Number of a type of values -> its letter in `struct`.
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i"},
    **{_FLOAT32: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"},
}


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where a tensor lies in a file.

    Attributes:
      shape: The slowest axis first, as in NumPy.
      type: The number of its type in ggml.
      offset: Its first byte, counted from the start of the file.
    """

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclasses.dataclass(frozen=True)
class Header:
    """What stands before the tensors of a GGUF file.

    Attributes:
      file: The file.
      metadata: Keys and values: numbers, strings, and lists of them.
      tensors: Name -> where the tensor lies.
    """

    file: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Stored]

    @property
    def architecture(self) -> str:
        """The family of the model, in the words of GGUF.

        Raises:
          ValueError: If the file does not name it.
        """
        return self.value("general.architecture")

    def value(self, key: str) -> Any:
        """The value of a key.

        Raises:
          ValueError: If the file lacks it.
        """
        if key not in self.metadata:
            raise ValueError(f"{self.file} lacks the key {key!r}; convert the model anew.")
        return self.metadata[key]


def is_file(name: str | os.PathLike[str]) -> bool:
    """Whether a name of weights or of a tokenizer is that of a GGUF file, which need not exist."""
    return Path(name).suffix == SUFFIX


def read(file: str | os.PathLike[str]) -> Header:
    """Reads a file's header, and nothing of its tensors.

    Args:
      file: A GGUF file.

    Raises:
      ValueError: If there is no such file, it is none of GGUF, or it ends within its header.
    """
    path = paths.place(file)
    try:
        with open(path, "rb") as opened, _mapped(opened.fileno()) as data:
            return _parse(path, data)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); give the path of a file.") from error
    except (struct.error, LookupError, UnicodeDecodeError, ArithmeticError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, or ends within its header ({type(error).__name__}: {error}); "
            "fetch it again."
        ) from error


def _mapped(descriptor: int) -> mmap.mmap:
    if not os.fstat(descriptor).st_size:
        raise OSError("it is empty")
    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)


def _parse(path: Path, data: mmap.mmap) -> Header:
    reader = _Reader(data)
    if data[: len(_MAGIC)] != _MAGIC:
        raise ValueError(f"{path} is no GGUF file: it does not begin with {_MAGIC!r}.")
    reader.position = len(_MAGIC)
    version, tensors, pairs = reader.unpack("IQQ")
    if version not in _VERSIONS:
        raise ValueError(f"{path} is of GGUF version {version}; {_VERSIONS} are read.")
    metadata = dict(reader.pair() for _ in range(pairs))
    places = dict(reader.place() for _ in range(tensors))
    alignment = metadata.get(_ALIGNMENT, 32)
    start = -(-reader.position // alignment) * alignment
    return Header(
        path,
        metadata,
        {n: dataclasses.replace(at, offset=start + at.offset) for n, at in places.items()},
    )


@dataclasses.dataclass
class _Reader:
    """Reads one value after the other."""

    data: mmap.mmap
    position: int = 0

    def unpack(self, letters: str) -> tuple[Any, ...]:
        """Numbers of the types that ``letters`` name."""
        values = struct.unpack_from(f"<{letters}", self.data, self.position)
        self.position += struct.calcsize(f"<{letters}")
        return values

    def string(self) -> str:
        (length,) = self.unpack("Q")
        end = self.position + length
        if end > len(self.data):
            raise IndexError(f"a string of {length} bytes")
        text = self.data[self.position : end].decode()
        self.position = end
        return text

    def pair(self) -> tuple[str, Any]:
        key = self.string()
        (kind,) = self.unpack("I")
        if kind == _ARRAY:
            return key, self.array()
        value = next(self.values(kind, 1))
        # The shortest decimal that is this float32, as files of other formats have it.
        return key, float(str(np.float32(value))) if kind == _FLOAT32 else value

    def array(self) -> list[Any]:
        kind, length = self.unpack("IQ")
        return list(self.values(kind, length))

    def values(self, kind: int, length: int) -> Iterator[Any]:
        if kind == _STRING:
            yield from (self.string() for _ in range(length))
        elif kind == _ARRAY:
            yield from (self.array() for _ in range(length))
        else:
            yield from self.unpack(f"{length}{_SCALARS[kind]}")

    def place(self) -> tuple[str, Stored]:
        name = self.string()
        (axes,) = self.unpack("I")
        shape = self.unpack(f"{axes}Q")
        kind, offset = self.unpack("IQ")
        return name, Stored(shape[::-1], kind, offset)
