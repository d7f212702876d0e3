"""Reads kernels of layers as quantised blocks: made from a file's values, or a GGUF file's own.

Values are read and rounded a layer at a time, so that a stack of matrices is never wide in memory.

Axes: L layers, I inputs, O outputs, N blocks, n = I / N inputs of a block.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from memarc.models import tensor_files
from memarc.models.config import BackboneConfig
from memarc.models.gguf_blocks import BLOCK, CODES
from memarc.models.tensor_files import Tensor
from memarc.models.tensor_names import Entry
from memarc.ops import quantised
from memarc.ops.quantised import QuantisedKernel

GGUF = "gguf"
"""The storage that takes over the blocks of a GGUF file."""

STORAGE = (*quantised.BITS, GGUF)

Ranges = tuple[tuple[int, int], ...]
"""Start and stop on each axis of a leaf."""

Place = Callable[[tuple[int, ...], Callable[[Ranges], np.ndarray]], Any]
"""``(shape, read) -> array``: where the array lies whose ranges ``read`` gives."""


def is_kernel(entry: Entry) -> bool:
    """Whether a leaf is held in blocks: kernels of layers are; tables, norms and biases are not."""
    return entry.path[0] == "layers" and entry.path[-1] == "kernel"


def read(
    tensors: Mapping[str, Tensor],
    config: BackboneConfig,
    entry: Entry,
    storage: str,
    block: int,
    place: Place,
) -> QuantisedKernel:
    """Reads a kernel [L, I, O].

    Args:
      tensors: What `memarc.models.tensor_files.find` found and ``check`` let pass.
      config: Sizes of the backbone.
      entry: The leaf.
      storage: A name in `STORAGE`.
      block: n of "int8" and "int4"; a GGUF file has its own.
      place: Where each part of the kernel goes.

    Raises:
      ValueError: If blocks do not divide the inputs, or the file holds no blocks of one type that
        is taken over.
    """
    if storage == GGUF:
        return _own_blocks(tensors, config, entry, place)
    layers, inputs, outputs = shape = entry.leaf_shape(config)
    quantised.check_block(block, inputs)
    rounded = jax.jit(partial(quantised.quantise, dtype=storage, block=block))

    def part(ranges: Ranges, name: str, step: int) -> np.ndarray:
        """A range of codes or scales; ``step`` inputs stand behind one index of the axis I."""
        (first, last), rows, columns = ranges
        wide = (rows[0] * step // block * block, -(-rows[1] * step // block) * block)
        inside = slice(rows[0] - wide[0] // step, rows[1] - wide[0] // step)
        found = []
        for layer in range(first, last):
            of_layer = ((layer, layer + 1), wide, columns)
            values = tensor_files.read(tensors, config, entry, of_layer, np.float32)
            found.append(np.asarray(getattr(rounded(values[0]), name))[inside])
        return np.stack(found)

    return QuantisedKernel(
        place(shape, partial(part, name="codes", step=1)),
        place((layers, inputs // block, outputs), partial(part, name="scales", step=block)),
    )


def _own_blocks(
    tensors: Mapping[str, Tensor], config: BackboneConfig, entry: Entry, place: Place
) -> QuantisedKernel:
    """The blocks that a GGUF file holds, as they are."""
    found = {name: tensors[name] for name, _ in entry.tensors(config)}
    types = {tensor.dtype for tensor in found.values()}
    if len(types) > 1 or not types <= CODES.keys():
        name = next(iter(found))
        raise ValueError(
            f"model.storage_dtype is {GGUF!r}, but {name} and the same map of other layers are "
            f"{', '.join(sorted(types))} in the file; blocks are taken over of a GGUF file where "
            f"all layers are one of {', '.join(CODES)}. Give such a file, or 'int8' or 'int4', "
            "which round the values of any."
        )
    (kind,) = types
    layers, inputs, outputs = entry.leaf_shape(config)

    def part(name: str, size: int, dtype: Any) -> Any:
        """One of codes, scales and offsets, as if it were a matrix of ``size`` inputs."""
        of_entry = dataclasses.replace(entry, shape=(size, outputs))
        parts = {
            key: dataclasses.replace(tensor, opened=partial(_opened_part, tensor, name))
            for key, tensor in found.items()
        }
        read = partial(tensor_files.read, parts, config, of_entry, dtype=dtype)
        return place((layers, size, outputs), read)

    blocks = inputs // BLOCK
    return QuantisedKernel(
        part("codes", inputs, CODES[kind]),
        part("scales", blocks, np.float16),
        part("offsets", blocks, np.float16) if kind == "Q4_1" else None,
    )


@contextlib.contextmanager
def _opened_part(tensor: Tensor, name: str) -> Iterator[Any]:
    """Opens a tensor of a GGUF file as one of the parts of its blocks."""
    with tensor.opened() as source:
        yield dataclasses.replace(source, part=name)
