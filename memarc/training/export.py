"""Writes and reads what a run releases: tuned parameters, and frozen ones that the run drew."""

import os
from pathlib import Path

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from memarc.typing import Params

TRAINABLE = "trainable.safetensors"
"""The file of tuned parameters."""

DRAWN = "drawn.safetensors"
"""The file of frozen parameters that come from no backbone but were drawn when the run began."""

_SEPARATOR = "/"
_EMPTY, _HAS_DRAWN = "empty", "has_drawn"  # Fields of a file's metadata.


def save(folder: Path, trainable: Params, drawn: Params) -> None:
    """Writes both trees into a folder, each file whole or not at all.

    Args:
      folder: An existing folder.
      trainable: The tuned parameters, a nested dict of arrays.
      drawn: The frozen parameters that no backbone's weights can give back, a nested dict of
        arrays. An empty one gets no file.
    """
    has_drawn = bool(jax.tree.leaves(drawn))
    if has_drawn:
        _write(folder / DRAWN, drawn, {})
    else:
        (folder / DRAWN).unlink(missing_ok=True)
    _write(folder / TRAINABLE, trainable, {_HAS_DRAWN: str(has_drawn)})


def load(folder: Path) -> tuple[Params, Params]:
    """Reads what `save` wrote.

    Args:
      folder: The folder of a finished run.

    Returns:
      ``(trainable, drawn)``, NumPy arrays of the saved shapes and dtypes; ``drawn`` is empty where
      there is nothing of the kind.

    Raises:
      ValueError: If a file is missing or damaged.
    """
    trainable, metadata = _read(folder / TRAINABLE)
    drawn = _read(folder / DRAWN)[0] if metadata.get(_HAS_DRAWN) == str(True) else {}
    return trainable, drawn


def _write(path: Path, tree: Params, metadata: dict[str, str]) -> None:
    """Writes a tree; the names of arrays are their paths, and empty dicts are named apart."""
    flat = traverse_util.flatten_dict(tree, keep_empty_nodes=True, sep=_SEPARATOR)
    empty = [name for name, leaf in flat.items() if leaf is traverse_util.empty_node]
    arrays = {
        name: np.asarray(jax.device_get(leaf), order="C")
        for name, leaf in flat.items()
        if leaf is not traverse_util.empty_node
    }
    partial = path.with_suffix(".partial")
    safetensors.numpy.save_file(arrays, partial, metadata | {_EMPTY: "\n".join(empty)})
    os.replace(partial, path)


def _read(path: Path) -> tuple[Params, dict[str, str]]:
    """A tree and its metadata."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; give the folder of a run that has ended.")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} cannot be read as parameters ({error}); it is damaged. Restore the file, or "
            "run again in another workdir."
        ) from error
    empty = {name: {} for name in metadata.get(_EMPTY, "").split("\n") if name}
    return traverse_util.unflatten_dict({**flat, **empty}, sep=_SEPARATOR), metadata
