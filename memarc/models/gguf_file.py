"""Reads a backbone from a GGUF file as from a Hugging Face folder: its config, and its tensors.

Tensors are mapped, and their blocks are widened a few rows at a time, so that no second copy of a
weight exists. The package `gguf` knows the blocks and the names.

Axes: I inputs, K width of a head, O outputs.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from memarc.gguf_header import Header, Stored
from memarc.models import gguf_blocks
from memarc.models.gguf_config import FACTORS, architecture_of

TYPES = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
)
"""The types of tensors that are read."""

_IGNORED = {FACTORS}  # A table of what the config says of positions.


@dataclasses.dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file, seen as the Hugging Face folder of the same model holds it.

    Attributes:
      file: The file.
      stored: Where the tensor lies in it.
      dtype: Its type in the words of ggml, such as "Q4_1".
      heads: Heads whose rows are interleaved in the file: first, K/2-th, second, ..; 0 for none.
      offset: What the file adds to every value.
      transposed: Whether the file holds [O, I] and the folder [I, O].
      part: None for the values; or what of their blocks is read (`gguf_blocks.PARTS`), as if it
        were a tensor, of which a block has one scale where it has 32 values.
    """

    file: Path
    stored: Stored
    dtype: str
    heads: int = 0
    offset: float = 0.0
    transposed: bool = False
    part: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the folder's tensor has."""
        return self.stored.shape[::-1] if self.transposed else self.stored.shape

    @contextlib.contextmanager
    def opened(self) -> Iterator["GgufTensor"]:
        """Itself: every part that is read maps the file anew."""
        yield self

    def __getitem__(self, index: slice | tuple[slice, ...]) -> np.ndarray:
        """Reads a range of rows, and of columns if there are two ranges: float32 where widened."""
        rows, *more = index if isinstance(index, tuple) else (index,)
        if len(self.shape) == 1:
            whole = self._read(slice(0, 1), slice(0, self.shape[0]))[0]
            return whole[self._rows(rows)]
        columns = more[0] if more else slice(0, self.shape[1])
        if self.transposed:
            return self._read(self._rows(columns), rows).T
        return self._read(self._rows(rows), columns)

    def _rows(self, rows: slice) -> slice | np.ndarray:
        """Where rows of the folder's tensor lie in the file."""
        if not self.heads:
            return rows
        width = self.stored.shape[0] // self.heads  # K.
        head, row = np.divmod(np.arange(rows.start, rows.stop), width)
        half, pair = np.divmod(row, width // 2)
        return head * width + 2 * pair + half

    def _read(self, rows: slice | np.ndarray, columns: slice) -> np.ndarray:
        """Some rows of the file, of which blocks beside ``columns`` are not read."""
        gguf = _package(self.file)
        kind = gguf.GGMLQuantizationType[self.dtype]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        *lead, width = self.stored.shape
        shape = (lead[0] if lead else 1, width // values * size)
        data = np.memmap(self.file, np.uint8, "r", self.stored.offset, shape)
        in_block = 1 if self.part in ("scales", "offsets") else values
        first, last = columns.start // in_block, -(-columns.stop // in_block)
        blocks = np.ascontiguousarray(data[rows, first * size : last * size])
        if self.part:
            found = gguf_blocks.PARTS[self.part](blocks, self.dtype)
        else:
            found = gguf.quants.dequantize(blocks, kind) - np.float32(self.offset)
        start = first * in_block
        return found[:, columns.start - start : columns.stop - start]


def find(header: Header, names: Iterable[str]) -> dict[str, GgufTensor]:
    """Finds the tensors of a Hugging Face folder in a file; reads none of them.

    Args:
      header: The file's header.
      names: Their names in a folder.

    Returns:
      Name -> tensor, of those that are there. What else the file holds has its own name.

    Raises:
      ValueError: If the file ends before its tensors do, one is of a type that is not read, or
        the package `gguf` is missing.
    """
    gguf = _package(header.file)
    _check(header)
    architecture, config = architecture_of(header), header.metadata
    number = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}[header.architecture]
    layers = header.value(f"{header.architecture}.block_count")
    names_of = gguf.get_tensor_name_map(number, layers)
    heads = config.get(f"{header.architecture}.attention.head_count", 0)
    interleaved = {
        "attn_q": heads,
        "attn_k": config.get(f"{header.architecture}.attention.head_count_kv", heads),
    }
    left = {name: stored for name, stored in header.tensors.items() if name not in _IGNORED}
    found = {}
    for name in names:
        base, _, suffix = name.rpartition(".")
        written = f"{names_of.get_name(base)}.{suffix}"
        if written not in left:
            continue
        part = written.split(".")[-2]
        found[name] = GgufTensor(
            header.file,
            left.pop(written),
            _type_name(header.tensors[written], gguf),
            heads=interleaved.get(part, 0) if architecture.interleaved else 0,
            offset=architecture.norm_offset if written.endswith("norm.weight") else 0.0,
            transposed=suffix == "weight" and part in architecture.transposed,
        )
    unknown = {
        name: GgufTensor(header.file, stored, _type_name(stored, gguf))
        for name, stored in left.items()
    }
    return found | unknown


def _type_name(stored: Stored, gguf: Any) -> str:
    """The type of a tensor in the words of ggml."""
    known = {kind.value: kind.name for kind in gguf.GGMLQuantizationType}
    return known.get(stored.type, f"type {stored.type}")


def _check(header: Header) -> None:
    """Raises ValueError for types that are not read, and for a file that ends too early."""
    gguf = _package(header.file)
    types = {name: _type_name(stored, gguf) for name, stored in header.tensors.items()}
    foreign = {name: kind for name, kind in types.items() if kind not in TYPES}
    if foreign:
        name, kind = next(iter(foreign.items()))
        raise ValueError(
            f"{header.file} holds {len(foreign)} tensors of types that are not read, such as "
            f"{name} of {kind}; give a file of the types {', '.join(TYPES)} (llama-quantize "
            "writes one)."
        )
    size = header.file.stat().st_size
    for name, stored in header.tensors.items():
        values, width = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[types[name]]]
        if not stored.shape or stored.shape[-1] % values:
            raise ValueError(
                f"{header.file} is damaged: {name} is {types[name]}{list(stored.shape)}, whose "
                f"rows are no multiple of {values} values. Fetch it again."
            )
        end = stored.offset + math.prod(stored.shape) // values * width
        if end > size:
            raise ValueError(
                f"{header.file} ends within the tensor {name}: it has {size} bytes of at least "
                f"{end}. Fetch it again."
            )


def _package(file: Path) -> Any:
    """The package that knows the blocks of GGUF.

    Raises:
      ValueError: If it is not installed.
    """
    try:
        import gguf  # An extra: most users have folders.
    except ImportError as error:
        raise ValueError(
            f"{file} is a GGUF file, for which the package gguf is needed: "
            "pip install 'memarc[gguf]'."
        ) from error
    return gguf
