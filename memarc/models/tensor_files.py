"""Reads index ranges of a backbone's leaves from the files of its weights.

A file is mapped anew for every tensor that is read: the pages read count as memory of the process
until it is unmapped, and would add up to all that lies in it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors

from memarc import gguf_header
from memarc.models import gguf_file, hub_config
from memarc.models.config import BackboneConfig
from memarc.models.tensor_names import Entry, bare_name, full_name, is_ignored, name_table

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_BLOCK_BYTES = 2**18  # Rows are read in blocks of this size: the only second copy of a weight.


class Tensor(Protocol):
    """A tensor of a file, of which the header has been read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in a Hugging Face folder."""
        ...

    @property
    def dtype(self) -> str:
        """Its dtype in the words of its file, such as "BF16"."""
        ...

    def opened(self) -> contextlib.AbstractContextManager[Any]:
        """Gives what a vector's values are read from by one slice, and a matrix's by two."""
        ...


@dataclasses.dataclass(frozen=True)
class SafeTensor:
    """A tensor of a safetensors file.

    Attributes:
      file: The file.
      name: The name as the file has it, with its prefix.
      shape: Its shape.
      dtype: In the words of safetensors.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Maps the file until the end of the block."""
        with _opened(self.file) as file:
            yield file.get_slice(self.name)


def find(weights: Path, config: BackboneConfig) -> Mapping[str, Tensor]:
    """Lists tensors by bare name; reads headers only.

    Args:
      weights: A Hugging Face folder, or a GGUF file.
      config: Sizes of the backbone.

    Raises:
      ValueError: If files are missing or damaged, or two tensors have the same bare name.
    """
    if not gguf_header.is_file(weights):
        return _of_folder(weights, config)
    wanted = [name for entry in name_table(config) for name, _ in entry.tensors(config)]
    names = {full_name(name, config): name for name in wanted}
    found = gguf_file.find(gguf_header.read(weights), names)
    return {names.get(name, name): tensor for name, tensor in found.items()}


def _of_folder(folder: Path, config: BackboneConfig) -> dict[str, SafeTensor]:
    """The tensors of a folder's safetensors files."""
    tensors = {}
    for path in _weight_files(folder):
        with _opened(path) as file:
            for written in file.keys():
                name = bare_name(written, config.kind)
                if is_ignored(name, config):
                    continue
                if name in tensors:
                    raise ValueError(f"{folder} holds {name!r} more than once ({written!r}).")
                source = file.get_slice(written)
                shape = tuple(source.get_shape())
                tensors[name] = SafeTensor(path, written, shape, source.get_dtype())
    return tensors


def check(
    weights: Path, config: BackboneConfig, table: Sequence[Entry], tensors: Mapping[str, Tensor]
) -> None:
    """Raises one ValueError that lists all missing, unknown and wrong tensors.

    Args:
      weights: To be named.
      config: Sizes of the backbone.
      table: The leaves of the backbone.
      tensors: What `find` found.
    """
    wanted = {name: entry.file_shape() for entry in table for name, _ in entry.tensors(config)}
    wrong = []
    for name in sorted(wanted.keys() & tensors.keys()):
        shape, dtype = tensors[name].shape, tensors[name].dtype
        if shape != wanted[name] or dtype not in gguf_file.TYPES:
            wrong.append(f"{name} is {dtype}{list(shape)}, not {list(wanted[name])}")
    lists = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - wanted.keys()),
        "of another shape, or not F32, F16 or BF16": wrong,
    }
    found = "".join(f"\n  {title}: {names}" for title, names in lists.items() if names)
    if found:
        raise ValueError(
            f"{weights} does not hold the {config.kind} backbone that it describes "
            f"(names without the prefix '{config.kind}.'):{found}"
        )


def read(
    tensors: Mapping[str, Tensor],
    config: BackboneConfig,
    entry: Entry,
    ranges: Sequence[tuple[int, int]],
    dtype: Any,
) -> np.ndarray:
    """Reads a range of a leaf and nothing else; other layers, rows and columns stay on disk.

    Args:
      tensors: What `find` found and `check` let pass.
      config: Sizes of the backbone.
      entry: The leaf.
      ranges: Start and stop on each of its axes, within its shape.
      dtype: Dtype of the result; each value is cast once.

    Returns:
      A new array; its shape is that of the ranges.

    Raises:
      ValueError: If a file has gone since.
    """
    leaf = np.empty([stop - start for start, stop in ranges], dtype)
    inner = list(ranges[1:] if "{layer}" in entry.name else ranges)
    for name, index in entry.tensors(config):
        view = leaf
        if index:
            layer = index[0] - ranges[0][0]
            if not 0 <= layer < len(leaf):
                continue
            view = leaf[layer]
        # [O, I] written through a view of the leaf: [I, O] is never a copy of its own.
        view = view.T if entry.transposed else view
        *rows, columns = inner[::-1] if entry.transposed else inner
        part, parts = entry.part
        first = part * (entry.file_shape()[-1] // parts)
        place = (*rows, (first + columns[0], first + columns[1]))
        with tensors[name].opened() as source:
            _copy(source, view, place)
    return leaf


def _copy(source: Any, target: np.ndarray, place: tuple[tuple[int, int], ...]) -> None:
    """Copies the part of a file's tensor at ``place`` into an array, in blocks of rows."""
    if not target.size:
        return
    columns = slice(*place[-1])
    if target.ndim == 1:
        target[:] = source[columns]
        return
    row_bytes = 4 * target[:1].size  # No source dtype is wider than float32.
    rows = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(0, len(target), rows):
        stop = min(start + rows, len(target))  # A slice of a file may not run past its end.
        offset = place[0][0]
        target[start:stop] = source[offset + start : offset + stop, columns]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, mapped until the end of the block."""
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}); fetch it again.") from error
    with file:
        yield file


def _weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files, all present."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise ValueError(
            f"{folder} holds neither {WEIGHTS} nor {INDEX}. Other formats are not read: convert "
            "them with transformers, `model.save_pretrained(folder)`."
        )
    index = hub_config.read_json(folder / INDEX)
    files = sorted(set(index.get("weight_map", {}).values()))
    absent = [file for file in files if not (folder / file).is_file()]
    if absent or not files:
        raise ValueError(f"{folder / INDEX} names {files}, of which {absent} are missing.")
    return [folder / file for file in files]
