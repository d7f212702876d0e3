"""Reads index ranges of a backbone's leaves from the files of its weights.

A file is mapped anew for every tensor that is read: the pages read count as memory of the process
until it is unmapped, and would add up to all that lies in it.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from memarc import gguf_header
from memarc.models import gguf_file, hub_config
from memarc.models.config import BackboneConfig
from memarc.models.families import known
from memarc.models.family import Family
from memarc.models.tensor_names import Entry

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

DTYPES = gguf_file.TYPES  # Those of safetensors are among them.

_OLD_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_BLOCK_BYTES = 2**18  # Rows are read in blocks of this size: the only second copy of a weight.


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor lies, and what the header of its file says of it.

    Attributes:
      name: The name as the file has it, with its prefix.
      shape: The tensor's shape.
      dtype: In the words of safetensors, such as "BF16".
      opened: Opens what the tensor is read from, for as long as a block lasts: an object that is
        sliced by rows, and by rows and columns, to NumPy arrays.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    opened: Callable[[], AbstractContextManager[Any]]


def find(weights: Path, config: BackboneConfig) -> dict[str, Tensor]:
    """Lists tensors by bare name; reads headers only.

    Args:
      weights: A Hugging Face folder, or a GGUF file.
      config: Sizes of the backbone.

    Raises:
      ValueError: If files are missing or damaged, or two tensors have the same bare name.
    """
    of_file = gguf_header.is_file(weights)
    listed = _of_gguf(weights, config) if of_file else _of_folder(weights)
    return by_bare_name(listed, config, weights)


def by_bare_name(
    tensors: Iterable[Tensor], config: BackboneConfig, folder: Path
) -> dict[str, Tensor]:
    """Tensors by name without prefix, but for those that are not read.

    Args:
      tensors: All of a folder or file.
      config: Sizes of the backbone.
      folder: To be named.

    Raises:
      ValueError: If two tensors have the same bare name.
    """
    family, found = known.get(config.kind), {}
    head = family.mask_head if config.transform else None
    for tensor in tensors:
        name = bare_name(tensor.name, family)
        is_read = head is not None and (head.holds(name) or name == family.table)
        if is_ignored(name, family) and not is_read:
            continue
        if name in found:
            raise ValueError(f"{folder} holds {name!r} more than once ({tensor.name!r}).")
        found[name] = tensor
    return found


def _of_gguf(path: Path, config: BackboneConfig) -> Iterator[Tensor]:
    """The tensors of a GGUF file, by the names that they have in a folder."""
    family = known.get(config.kind)
    entries = known.name_table(config)
    names = [full_name(name, family) for x in entries for name, _ in x.tensors(config)]
    for name, tensor in gguf_file.find(gguf_header.read(path), names).items():
        yield Tensor(name, tensor.shape, tensor.dtype, tensor.opened)


def _of_folder(folder: Path) -> Iterator[Tensor]:
    for path in _weight_files(folder):
        with _opened(path) as file:
            for name in file.keys():
                source = file.get_slice(name)
                opened = partial(_opened_tensor, path, name)
                yield Tensor(name, tuple(source.get_shape()), source.get_dtype(), opened)


def bare_name(name: str, family: Family) -> str:
    """Drops the family's prefix ("bert.", "model.") and modernises the names of old norms."""
    name = name.removeprefix(family.prefix)
    for old, new in _OLD_NORMS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def full_name(name: str, family: Family, *, has_head: bool = False) -> str:
    """The name to write: a decoder's file is of the whole language model, an encoder's is not.

    With the head of a task it is of a whole model for either.
    """
    is_bare = not (family.parts.is_decoder or has_head) or name == family.table
    is_bare |= family.mask_head is not None and family.mask_head.holds(name)
    return name if is_bare else family.prefix + name


def is_ignored(name: str, family: Family) -> bool:
    """Whether a file may hold a tensor of this bare name that is not read."""
    patterns = (re.escape(x) for x in family.ignored)
    return any(
        re.fullmatch(x.replace(r"\{layer\}", r"\d+").replace(r"\*", ".*"), name) for x in patterns
    )


def check(
    folder: Path, config: BackboneConfig, table: Sequence[Entry], tensors: Mapping[str, Tensor]
) -> None:
    """Raises one ValueError that lists all missing, unknown and wrong tensors.

    Args:
      folder: To be named.
      config: Sizes of the backbone.
      table: The leaves of the backbone.
      tensors: What `find` found.
    """
    family = known.get(config.kind)
    wanted = {name: entry.file_shape() for entry in table for name, _ in entry.tensors(config)}
    spare = {family.table} - wanted.keys()  # Some files hold a tied table twice.
    wrong = []
    for name in sorted(wanted.keys() & tensors.keys()):
        shape, dtype = tensors[name].shape, tensors[name].dtype
        if shape != wanted[name] or dtype not in DTYPES:
            wrong.append(f"{name} is {dtype}{list(shape)}, not {list(wanted[name])}")
    lists = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - wanted.keys() - spare),
        f"of another shape, or not {', '.join(DTYPES)}": wrong,
    }
    head = family.mask_head if config.transform else None
    lacks = [name for name in lists["missing"] if head is not None and head.holds(name)]
    if lacks:
        raise ValueError(
            f"{folder} lacks {lacks} of the masked-language head, which head.pooling 'mask' reads: "
            "it was saved without (as sentence encoders and classifiers are). Give the weights of "
            "a masked-language model, or choose another head.pooling."
        )
    found = "".join(f"\n  {title}: {names}" for title, names in lists.items() if names)
    if found:
        raise ValueError(
            f"{folder} does not hold the {config.kind} backbone that it describes "
            f"(names without the prefix '{family.prefix}'):{found}"
        )
    _check_tied(folder, family, table, tensors)


def _check_tied(
    folder: Path, family: Family, table: Sequence[Entry], tensors: Mapping[str, Tensor]
) -> None:
    """Raises ValueError if an output table that is said to be the word table is another one."""
    words = {entry.path: entry.name for entry in table}
    if family.table not in tensors or ("final", "table") in words:
        return
    own, word = tensors[family.table], tensors[words["embeddings", "word"]]
    with own.opened() as first, word.opened() as second:
        rows = max(1, _BLOCK_BYTES // (4 * max(1, word.shape[-1])))
        starts = range(0, word.shape[0], rows)
        blocks = (slice(start, min(start + rows, word.shape[0])) for start in starts)
        is_same = own.shape == word.shape and all(
            np.array_equal(first[block], second[block]) for block in blocks
        )
    if not is_same:
        raise ValueError(
            f"{folder}: {hub_config.FILE_NAME} says that the output table is the word table, but "
            f"the file's {own.name!r} is another one. If the model uses it, set "
            "tie_word_embeddings to false; else take it out of the file."
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
      ValueError: If a file has gone since, or a value is too large for float16, in which it was
        written.
    """
    shape = [stop - start for start, stop in ranges]
    leaf = np.ones(shape, dtype) if entry.first_layer else np.empty(shape, dtype)
    *rows, outputs = ranges[1:] if entry.is_stacked else ranges
    for name, index in entry.tensors(config):
        view = leaf
        if index:
            layer = index[0] - ranges[0][0]
            if not 0 <= layer < len(leaf):
                continue
            view = leaf[layer]
        with tensors[name].opened() as source:
            for place, start, stop in entry.runs(*outputs):
                # [O, I] written through a view of the leaf: [I, O] is never a copy of its own.
                run = view[..., start - outputs[0] : stop - outputs[0]]
                axes = [*rows, (place, place + stop - start)]
                if entry.transposed:
                    run, axes = run.T, axes[::-1]
                _copy(source, run, axes, tensors[name])
    return leaf


def _copy(
    source: Any, target: np.ndarray, place: Sequence[tuple[int, int]], tensor: Tensor
) -> None:
    """Copies the part of a file's tensor at ``place`` into an array, in blocks of rows."""
    if not target.size:
        return
    (first, last), *columns = place
    across = tuple(slice(*axis) for axis in columns)
    row_bytes = 4 * target[:1].size  # No source dtype is wider than float32.
    rows = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(first, last, rows):
        stop = min(start + rows, last)  # A slice of a file may not run past its end.
        block = source[(slice(start, stop), *across)]
        if tensor.dtype == "F16" and not np.isfinite(block).all():
            raise ValueError(
                f"{tensor.name} holds infinite values or NaN: it was written as float16, whose "
                "range is too small for it. Convert the weights to bfloat16 or float32 again."
            )
        target[start - first : stop - first] = block


@contextlib.contextmanager
def _opened_tensor(path: Path, name: str) -> Iterator[Any]:
    """A tensor of a safetensors file, mapped until the end of the block."""
    with _opened(path) as file:
        yield file.get_slice(name)


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
