"""Loads and saves Hugging Face folders of backbones, one tensor at a time; loads GGUF files too.

A folder holds ``config.json`` and ``model.safetensors``, or shards and their index. The names of
tensors stand in `memarc.models.families`; loading and saving both read a family's table.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors.numpy
from flax import traverse_util

from memarc import gguf_header, paths
from memarc.models import block_files, hub_config, tensor_files
from memarc.models.block_files import Ranges
from memarc.models.config import BackboneConfig
from memarc.models.families import known
from memarc.models.hub_head import HubHead
from memarc.models.tensor_files import INDEX, WEIGHTS, full_name
from memarc.models.tensor_names import Entry
from memarc.ops import quantised
from memarc.typing import Params

STORAGE_DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}

_CONFIG = hub_config.FILE_NAME
_HUB_PATTERNS = (_CONFIG, "model*.safetensors*")


ShardingOf = Callable[[tuple[str, ...], tuple[int, ...]], jax.sharding.Sharding]
"""``(path, shape) -> sharding``: how a leaf lies on devices."""


def load(
    weights: str | os.PathLike[str],
    *,
    dtype: str,
    storage_dtype: str,
    storage_block: int = quantised.BLOCK,
    fills_mask: bool = False,
    sharding_of: ShardingOf | None = None,
) -> tuple[BackboneConfig, Params]:
    """Loads a pre-trained backbone; at no time are there two copies of its weights in memory.

    Args:
      weights: A local folder, a GGUF file, or the name of a model on the Hugging Face hub.
      dtype: Compute dtype of the config, "float32" or "bfloat16".
      storage_dtype: How the parameters are held: "float32"; "bfloat16"; or kernels of layers as
        `memarc.ops.quantised.QuantisedKernel`, all else in ``dtype``: "int8" and "int4" round
        them, "gguf" takes over the blocks of a GGUF file.
      storage_block: How many inputs of a map share a scale in "int8" and "int4".
      fills_mask: Whether an encoder's masked-language head is read too (`backbone.transform`).
      sharding_of: Where each leaf goes, straight from the files: the host holds one leaf at a
        time, of which each process reads what its own devices get. None: all to host memory.

    Returns:
      The config, and the parameters in the tree of `memarc.models.backbone.init`: global arrays
      on the devices that ``sharding_of`` gives, else NumPy arrays. Pass them to a compiled
      function as arguments.

    Raises:
      ValueError: For weights that cannot be found, a config that is not supported, or tensors
        that are missing, unknown, or of another shape or dtype (all are listed).
    """
    in_blocks = storage_dtype in block_files.STORAGE
    kept_as = STORAGE_DTYPES.get(dtype if in_blocks else storage_dtype)
    if kept_as is None:
        choices = (*STORAGE_DTYPES, *block_files.STORAGE)
        raise ValueError(f"storage_dtype is {storage_dtype!r}; choose one of {choices}.")
    place = find(weights)
    config = hub_config.read(place, dtype, fills_mask=fills_mask)
    table, flat = known.name_table(config), {}
    tensors = tensor_files.find(place, config)
    tensor_files.check(place, config, table, tensors)
    # Largest first: where a device's memory is the host's, the leaf that is there twice is then
    # small when nearly all weights are there.
    for entry in sorted(table, key=lambda entry: -math.prod(entry.leaf_shape(config))):
        place = partial(_placed, entry.path, sharding_of)
        if in_blocks and block_files.is_kernel(entry):
            flat[entry.path] = block_files.read(
                tensors, config, entry, storage_dtype, storage_block, place
            )
        else:
            read = partial(tensor_files.read, tensors, config, entry, dtype=kept_as)
            flat[entry.path] = place(entry.leaf_shape(config), read)
    return config, traverse_util.unflatten_dict(flat)


def _placed(
    path: tuple[str, ...],
    sharding_of: ShardingOf | None,
    shape: tuple[int, ...],
    read: Callable[[Ranges], np.ndarray],
) -> Any:
    """Reads a leaf to host memory, or to its devices: what several of them hold only once."""
    if sharding_of is None:
        return read(tuple((0, size) for size in shape))
    found: dict[Ranges, np.ndarray] = {}  # JAX may keep these very arrays: none is changed later.

    def part(index: Any) -> np.ndarray:
        bounds = (axis.indices(size) for axis, size in zip(index, shape, strict=True))
        ranges = tuple((start, stop) for start, stop, _ in bounds)
        if ranges not in found:
            found[ranges] = read(ranges)
        return found[ranges]

    # Transfers may go on after the call, and hold what they send.
    return jax.block_until_ready(
        jax.make_array_from_callback(shape, sharding_of(path, shape), part)
    )


def find(weights: str | os.PathLike[str]) -> Path:
    """Returns a folder or GGUF file as it is; fetches a hub name's weights, if not cached.

    Raises:
      ValueError: If there is neither, with the command that fetches the files.
    """
    place, name = paths.place(weights), str(weights)
    is_gguf = gguf_header.is_file(place)
    if place.is_dir() or (is_gguf and place.is_file()):
        return place
    if place.exists() or is_gguf or not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name):
        raise ValueError(
            f"No weights at {name!r}: it is not a folder (seen from {Path.cwd()}), and it cannot "
            f"be a hub name. Give a folder with {_CONFIG} and {WEIGHTS}, a GGUF file, or a name "
            "like 'google-bert/bert-base-uncased'."
        )
    try:
        from huggingface_hub import snapshot_download  # Local folders need no hub client.

        return Path(snapshot_download(name, allow_patterns=list(_HUB_PATTERNS)))
    except (ImportError, OSError, ValueError) as error:  # Hub and connection errors are OSErrors.
        command = " ".join((f"hf download {name}", *(f"--include '{p}'" for p in _HUB_PATTERNS)))
        raise ValueError(
            f"No weights for {name!r}: there is no such folder (seen from {Path.cwd()}), and the "
            f"Hugging Face cache and hub did not give it ({type(error).__name__}: {error}). With "
            f"huggingface_hub installed and a connection, run: {command}"
        ) from error


def save(
    folder: str | os.PathLike[str],
    config: BackboneConfig,
    params: Params,
    *,
    max_shard_bytes: int | None = None,
    head: HubHead | None = None,
    stated: Mapping[str, Any] | None = None,
) -> None:
    """Writes a folder that `load` and `transformers` read; without ``head`` it has no pooler.

    Every file appears whole or not at all; weights of an earlier save are removed last.

    Args:
      folder: Made if absent.
      config: Sizes of the backbone. Its compute dtype is not written.
      params: Tree of `memarc.models.backbone.init`; leaves keep their dtype.
      max_shard_bytes: Largest size of one file, in bytes of weights; a larger single tensor gets
        a file of its own. None writes one file. One file's kernels are copied at a time.
      head: The head of a task, which makes the folder one of a model with it; an output table is
        left out.
      stated: Further fields of config.json.

    Raises:
      ValueError: If ``params`` is not this config's tree, a tensor that a file has once differs
        between layers, no config.json states the config, or the bound is not positive.
    """
    if max_shard_bytes is not None and max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes is {max_shard_bytes}; it must be at least 1 or None.")
    family, table = known.get(config.kind), known.name_table(config)
    content = {**hub_config.content(config), **(stated or {})}
    if head is not None:
        content["architectures"] = [head.model_class]
    leaves: dict[tuple[str, ...], Any] = dict(traverse_util.flatten_dict(params))
    _check_leaves(config, table, leaves)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = _plan_shards(config, table, leaves, max_shard_bytes)
    files = _file_names(len(shards))
    is_whole = head is not None or config.transform is not None
    name_of = partial(full_name, family=family, has_head=is_whole)
    places, total = {}, 0
    for file, shard in zip(files, shards, strict=True):
        with _whole_file(folder / file) as path:
            arrays = {name_of(name): _file_array(leaves, parts) for name, parts in shard}
            if head is not None:
                arrays.pop(family.table, None)
                arrays |= head.tensors if file == files[-1] else {}
            # transformers refuses files that do not name the framework they are laid out for.
            safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
            places |= dict.fromkeys(arrays, file)
            total += sum(array.nbytes for array in arrays.values())
    if len(shards) > 1:
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
        files.append(INDEX)
    _write_json(folder / _CONFIG, content)
    for old in (*folder.glob("model-*-of-*.safetensors"), folder / WEIGHTS, folder / INDEX):
        if old.name not in files:
            old.unlink(missing_ok=True)


def _check_leaves(
    config: BackboneConfig, table: list[Entry], leaves: dict[tuple[str, ...], Any]
) -> None:
    """Raises one ValueError that lists all leaves that are not the config's."""
    wanted = {entry.path: entry.leaf_shape(config) for entry in table}
    given = {path: getattr(leaf, "shape", type(leaf).__name__) for path, leaf in leaves.items()}
    wrong = [
        f"{'/'.join(path)} is {given.get(path, 'absent')}, wanted {wanted.get(path, 'nothing')}"
        for path in sorted(wanted.keys() | given.keys())
        if wanted.get(path) != given.get(path)
    ]
    if wrong:
        raise ValueError(f"The parameters are not this config's backbone: {'; '.join(wrong)}.")


Parts = list[tuple[Entry, tuple]]
"""The parts of one tensor of a file, in order: entry, and index of the layer in its leaf."""


def _plan_shards(
    config: BackboneConfig,
    table: list[Entry],
    leaves: dict[tuple[str, ...], Any],
    max_bytes: int | None,
) -> list[list[tuple[str, Parts]]]:
    """Cuts the list of tensors into files."""
    tensors: dict[str, Parts] = {}
    for entry in table:
        for name, index in entry.tensors(config):
            tensors.setdefault(name, []).append((entry, index))
    shards, used = [[]], 0
    for name, parts in tensors.items():
        size = _bytes(leaves, parts)
        if shards[-1] and max_bytes is not None and used + size > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append((name, parts))
        used += size
    return shards


def _bytes(leaves: dict[tuple[str, ...], Any], parts: Parts) -> int:
    """How large a tensor is in a file."""
    some = parts[:1] if parts[0][0].shared else parts
    return sum(leaves[entry.path][index].nbytes for entry, index in some)


def _file_names(shards: int) -> list[str]:
    """Names of the weight files, as transformers numbers them."""
    if shards == 1:
        return [WEIGHTS]
    return [f"model-{i:05d}-of-{shards:05d}.safetensors" for i in range(1, shards + 1)]


def _file_array(leaves: dict[tuple[str, ...], Any], parts: Parts) -> np.ndarray:
    """One tensor as a file holds it; safetensors writes memory as it lies, so C order matters."""
    first = parts[0][0]
    arrays = [np.asarray(leaves[entry.path][index]) for entry, index in parts]
    if first.shared:
        if any(not np.array_equal(x, arrays[0]) for x in arrays):
            raise ValueError(
                f"{'/'.join(first.path)} differs between layers, but a file has one {first.name} "
                "for all of them. Save the backbone before it is tuned."
            )
        return arrays[0]
    whole = np.empty(first.file_shape(), arrays[0].dtype)
    for (entry, _), x in zip(parts, arrays, strict=True):
        target = whole.T if entry.transposed else whole
        for place, start, stop in entry.runs(0, entry.shape[-1]):
            target[..., place : place + stop - start] = x[..., start:stop]
    return whole


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON object."""
    with _whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """Gives a path to write to, and renames it to ``path`` only if all went well."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
