"""Writes and reads tuned parameters as one safetensors file: what a run releases."""

from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
from flax import traverse_util

from memarc.typing import Params

FILE_NAME = "trainable.safetensors"


def save(path: Path, trainable: Params) -> None:
    """Writes a nested dict of arrays; names are paths joined by "/"."""
    flat = traverse_util.flatten_dict(jax.device_get(trainable), sep="/")
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(array) for name, array in flat.items()}, path
    )


def load(path: Path) -> Params:
    """Reads what `save` wrote.

    Raises:
      ValueError: If the file is missing or damaged.
    """
    try:
        flat = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as tuned parameters ({error}).") from error
    return traverse_util.unflatten_dict(flat, sep="/")
