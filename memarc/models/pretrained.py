"""Loads and saves Hugging Face folders of BERT and RoBERTa encoders, one tensor at a time.

A folder holds ``config.json`` and ``model.safetensors``, or shards and their index. The names of
tensors stand in `memarc.models.tensor_names`; loading and saving both read that table.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from memarc.models.config import KINDS, BackboneConfig
from memarc.models.tensor_names import IGNORED, Entry, bare_name, name_table
from memarc.typing import Params

STORAGE_DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}

_FIELDS = {  # Field of `BackboneConfig` -> key of config.json.
    "kind": "model_type",
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "type_vocab": "type_vocab_size",
    "norm_epsilon": "layer_norm_eps",
    "activation": "hidden_act",
    "pad_id": "pad_token_id",
}
# What `transformers` takes where an old config.json says nothing; every size must be given.
_WHEN_ABSENT = {
    "bert": {"layer_norm_eps": 1e-12, "pad_token_id": 0},
    "roberta": {"layer_norm_eps": 1e-12, "pad_token_id": 1},
}
# Features that would change the function, with the one value that this backbone has.
_REQUIRED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
_CLASSES = {"bert": "BertModel", "roberta": "RobertaModel"}

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INDEX = "model.safetensors.index.json"
_HUB_PATTERNS = (_CONFIG, "model*.safetensors*")
_BLOCK_BYTES = 2**18  # Rows are read in blocks of this size: the only second copy of a weight.


def load(
    weights: str | os.PathLike[str], *, dtype: str, storage_dtype: str
) -> tuple[BackboneConfig, Params]:
    """Loads a pre-trained encoder; at no time are there two copies of its weights in memory.

    Args:
      weights: A local folder, or the name of a model on the Hugging Face hub.
      dtype: Compute dtype of the config, "float32" or "bfloat16".
      storage_dtype: Dtype of the parameters, "float32" or "bfloat16".

    Returns:
      The config, and the parameters in host memory: NumPy arrays in the tree of
      `memarc.models.backbone.init`. Pass them to a compiled function as arguments.

    Raises:
      ValueError: For weights that cannot be found, a config that is not supported, or tensors
        that are missing, unknown, or of another shape or dtype (all are listed).
    """
    if storage_dtype not in STORAGE_DTYPES:
        raise ValueError(
            f"storage_dtype is {storage_dtype!r}; choose one of {tuple(STORAGE_DTYPES)}."
        )
    folder = find_folder(weights)
    config = read_config(folder, dtype)
    table, flat = name_table(config), {}
    with contextlib.ExitStack() as stack:
        tensors = _open(folder, config.kind, stack)
        _check_tensors(folder, config, table, tensors)
        for entry in table:
            leaf = np.empty(entry.leaf_shape(config), STORAGE_DTYPES[storage_dtype])
            for name, index in entry.tensors(config):
                # [O, I] written through a view of the leaf: [I, O] is never a copy of its own.
                _copy(tensors[name], leaf[index].T if entry.transposed else leaf[index])
            flat[entry.path] = leaf
    return config, traverse_util.unflatten_dict(flat)


def find_folder(weights: str | os.PathLike[str]) -> Path:
    """Returns a local folder as it is; fetches a hub name's config and weights, if not cached.

    Raises:
      ValueError: If there is neither, with the command that fetches the files.
    """
    folder = Path(weights)
    if folder.is_dir():
        return folder
    name = str(weights)
    if folder.exists() or not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name):
        raise ValueError(
            f"No weights at {name!r}: it is not a folder (seen from {Path.cwd()}), and it cannot "
            f"be a hub name. Give a folder with {_CONFIG} and {_WEIGHTS}, or a name like "
            "'google-bert/bert-base-uncased'."
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


def read_config(folder: str | os.PathLike[str], dtype: str) -> BackboneConfig:
    """Reads the sizes of a folder's encoder.

    Args:
      folder: Holds a ``config.json``.
      dtype: Compute dtype, "float32" or "bfloat16"; it is the run's choice, not the folder's.

    Returns:
      The config.

    Raises:
      ValueError: If the file is missing or no JSON, the model is of another type, a size is
        missing, or the model has a feature that the backbone has not.
    """
    path = Path(folder) / _CONFIG
    given = _read_json(path)
    kind = given.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"{path}: model_type is {kind!r}; the supported ones are {KINDS}.")
    wrong = {k: given[k] for k, value in _REQUIRED.items() if given.get(k, value) != value}
    if wrong:
        wanted = {key: _REQUIRED[key] for key in wrong}
        raise ValueError(f"{path} has {wrong}, which is not supported; it must be {wanted}.")
    known = {key: value for key, value in given.items() if value is not None}
    known = {**_WHEN_ABSENT[kind], **known}
    missing = [key for key in _FIELDS.values() if key not in known]
    if missing:
        raise ValueError(f"{path} lacks {missing}; add them as the model was trained.")
    return BackboneConfig(**{field: known[key] for field, key in _FIELDS.items()}, dtype=dtype)


def save(
    folder: str | os.PathLike[str],
    config: BackboneConfig,
    params: Params,
    *,
    max_shard_bytes: int | None = None,
) -> None:
    """Writes a folder that `load` and `transformers` read; it has no pooler.

    Every file appears whole or not at all; weights of an earlier save are removed last.

    Args:
      folder: Made if absent.
      config: Sizes of the encoder. Its compute dtype is not written.
      params: Tree of `memarc.models.backbone.init`; leaves keep their dtype.
      max_shard_bytes: Largest size of one file, in bytes of weights; a larger single tensor gets
        a file of its own. None writes one file. One file's kernels are copied at a time.

    Raises:
      ValueError: If ``params`` is not this config's tree, or the bound is not positive.
    """
    if max_shard_bytes is not None and max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes is {max_shard_bytes}; it must be at least 1 or None.")
    table = name_table(config)
    leaves: dict[tuple[str, ...], Any] = dict(traverse_util.flatten_dict(params))
    _check_leaves(config, table, leaves)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = _plan_shards(config, table, leaves, max_shard_bytes)
    files = _file_names(len(shards))
    for file, shard in zip(files, shards, strict=True):
        with _whole_file(folder / file) as path:
            arrays = {name: _file_array(leaves[entry.path], entry, at) for name, entry, at in shard}
            # transformers refuses files that do not name the framework they are laid out for.
            safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
    if len(shards) > 1:
        places = {
            name: file for file, shard in zip(files, shards, strict=True) for name, _, _ in shard
        }
        total = sum(leaves[entry.path].nbytes for entry in table)
        _write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": places})
        files.append(_INDEX)
    _write_json(folder / _CONFIG, _config_json(config))
    for old in (*folder.glob("model-*-of-*.safetensors"), folder / _WEIGHTS, folder / _INDEX):
        if old.name not in files:
            old.unlink(missing_ok=True)


def _open(folder: Path, kind: str, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Opens a folder's files; maps bare names of tensors to slices, which read when indexed."""
    tensors = {}
    for path in _weight_files(folder):
        try:
            file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
        except (OSError, safetensors.SafetensorError) as error:
            raise ValueError(f"{path} cannot be read ({error}); fetch it again.") from error
        for full_name in file.keys():
            name = bare_name(full_name, kind)
            if name.startswith(IGNORED):
                continue
            if name in tensors:
                raise ValueError(f"{folder} holds {name!r} more than once ({full_name!r}).")
            tensors[name] = file.get_slice(full_name)
    return tensors


def _weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files, all present."""
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if not (folder / _INDEX).is_file():
        raise ValueError(
            f"{folder} holds neither {_WEIGHTS} nor {_INDEX}. Other formats are not read: convert "
            "them with transformers, `model.save_pretrained(folder)`."
        )
    index = _read_json(folder / _INDEX)
    files = sorted(set(index.get("weight_map", {}).values()))
    absent = [file for file in files if not (folder / file).is_file()]
    if absent or not files:
        raise ValueError(f"{folder / _INDEX} names {files}, of which {absent} are missing.")
    return [folder / file for file in files]


def _check_tensors(folder, config, table, tensors) -> None:
    """Raises one ValueError that lists all missing, unknown and wrong tensors."""
    wanted = {name: entry for entry in table for name, _ in entry.tensors(config)}
    wrong = []
    for name in sorted(wanted.keys() & tensors.keys()):
        shape, dtype = tuple(tensors[name].get_shape()), tensors[name].get_dtype()
        if shape != wanted[name].file_shape() or dtype not in ("F32", "F16", "BF16"):
            wrong.append(f"{name} is {dtype}{list(shape)}, not {list(wanted[name].file_shape())}")
    lists = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - wanted.keys()),
        "of another shape, or not F32, F16 or BF16": wrong,
    }
    found = "".join(f"\n  {title}: {names}" for title, names in lists.items() if names)
    if found:
        raise ValueError(
            f"{folder} does not hold the {config.kind} encoder of its {_CONFIG} (names without "
            f"the prefix '{config.kind}.'):{found}"
        )


def _check_leaves(config, table, leaves) -> None:
    """Raises one ValueError that lists all leaves that are not the config's."""
    wanted = {entry.path: entry.leaf_shape(config) for entry in table}
    given = {path: getattr(leaf, "shape", type(leaf).__name__) for path, leaf in leaves.items()}
    wrong = [
        f"{'/'.join(path)} is {given.get(path, 'absent')}, wanted {wanted.get(path, 'nothing')}"
        for path in sorted(wanted.keys() | given.keys())
        if wanted.get(path) != given.get(path)
    ]
    if wrong:
        raise ValueError(f"The parameters are not this config's encoder: {'; '.join(wrong)}.")


def _copy(source, target: np.ndarray) -> None:
    """Copies a tensor of an open file into an array of its shape, in blocks of rows."""
    row_bytes = 4 * target[:1].size  # No source dtype is wider than float32.
    rows = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(0, len(target), rows):
        stop = min(start + rows, len(target))  # A slice of a file may not run past its end.
        target[start:stop] = source[start:stop]


def _plan_shards(config, table, leaves, max_bytes) -> list[list[tuple[str, Entry, tuple]]]:
    """Cuts the list of tensors into files: (name, entry, index of the part of its leaf)."""
    shards, used = [[]], 0
    for entry in table:
        tensors = entry.tensors(config)
        size = leaves[entry.path].nbytes // len(tensors)
        for name, index in tensors:
            if shards[-1] and max_bytes is not None and used + size > max_bytes:
                shards.append([])
                used = 0
            shards[-1].append((name, entry, index))
            used += size
    return shards


def _file_names(shards: int) -> list[str]:
    """Names of the weight files, as transformers numbers them."""
    if shards == 1:
        return [_WEIGHTS]
    return [f"model-{i:05d}-of-{shards:05d}.safetensors" for i in range(1, shards + 1)]


def _file_array(leaf, entry, index) -> np.ndarray:
    """One tensor as a file holds it; safetensors writes memory as it lies, so C order matters."""
    part = np.asarray(leaf[index])
    return np.ascontiguousarray(part.T if entry.transposed else part)


def _config_json(config) -> dict[str, Any]:
    """The content of config.json; dropout rates and the like stay at transformers' defaults."""
    sizes = {key: getattr(config, field) for field, key in _FIELDS.items()}
    return {"architectures": [_CLASSES[config.kind]], **sizes, **_REQUIRED}


def _read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a JSON object.")
    return content


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
