"""How tensors of Hugging Face files make the leaves of a backbone, and helpers for their tables.

Axes: D width, F feed-forward width, L layers, I inputs, O outputs.
"""

import dataclasses
import math
from collections.abc import Iterator

from memarc.models.config import BackboneConfig


@dataclasses.dataclass(frozen=True)
class Part:
    """Which outputs of a tensor a leaf is: of each of equal groups, ``size`` from ``first`` on.

    Attributes:
      first: Where the leaf begins in each group.
      size: How many outputs of a group are the leaf's.
      of: Outputs of a group in all.
      groups: How many groups there are, such as heads.
    """

    first: int
    size: int
    of: int
    groups: int = 1

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Cuts outputs start .. stop of the leaf into runs that lie together in the tensor.

        Yields:
          Where a run begins in the tensor, and from where to where it is in the leaf.
        """
        while start < stop:
            group, within = divmod(start, self.size)
            end = min(stop, (group + 1) * self.size)
            yield group * self.of + self.first + within, start, end
            start = end


@dataclasses.dataclass(frozen=True)
class Entry:
    """One leaf of our tree and the tensors of a file that it is made of.

    Attributes:
      path: Path in our tree.
      name: Name in a file, without prefix; "{layer}" in it stands for 0 .. L - 1.
      shape: Shape of the leaf, without the axis L.
      transposed: True where a file holds [O, I] and our tree [I, O].
      part: The leaf's part of the outputs, the last axis of ``shape``; None: all.
      shared: All layers have the one tensor of a name without "{layer}".
      first_layer: The first layer that has the tensor; a norm's scale is 1 in those below.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transposed: bool = False
    part: Part | None = None
    shared: bool = False
    first_layer: int = 0

    @property
    def is_stacked(self) -> bool:
        """Whether the leaf has an axis L."""
        return self.shared or "{layer}" in self.name

    def leaf_shape(self, config: BackboneConfig) -> tuple[int, ...]:
        """Shape in our tree."""
        return (config.layers, *self.shape) if self.is_stacked else self.shape

    def file_shape(self) -> tuple[int, ...]:
        """Shape of each tensor in a file."""
        outputs = self.part.groups * self.part.of if self.part else self.shape[-1]
        shape = (*self.shape[:-1], outputs)
        return shape[::-1] if self.transposed else shape

    def tensors(self, config: BackboneConfig) -> list[tuple[str, tuple[int, ...]]]:
        """Each tensor's name in a file and the index of its part of the leaf."""
        if not self.is_stacked:
            return [(self.name, ())]
        return [(self.name.format(layer=i), (i,)) for i in range(self.first_layer, config.layers)]

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Gives what `Part.runs` gives, also where the leaf is all of the tensor."""
        return (self.part or Part(0, self.shape[-1], self.shape[-1])).runs(start, stop)

    @property
    def size(self) -> int:
        """Numbers of the leaf in one layer."""
        return math.prod(self.shape)


def norm(
    path: tuple[str, ...], name: str, width: int, has_bias: bool, first: int = 0
) -> list[Entry]:
    """The scale and, if it has one, the bias of a norm of layers from ``first`` on."""
    entries = [Entry((*path, "scale"), f"{name}.weight", (width,), first_layer=first)]
    if has_bias:
        entries.append(Entry((*path, "bias"), f"{name}.bias", (width,), first_layer=first))
    return entries


def dense(
    path: tuple[str, ...],
    name: str,
    inputs: int,
    outputs: int,
    has_bias: bool,
    *,
    transposed: bool = True,
    part: Part | None = None,
) -> list[Entry]:
    """The kernel and, if it has one, the bias of a map."""
    kernel = Entry((*path, "kernel"), f"{name}.weight", (inputs, outputs), transposed, part)
    if not has_bias:
        return [kernel]
    return [kernel, Entry((*path, "bias"), f"{name}.bias", (outputs,), part=part)]


def side_by_side(sizes: tuple[int, ...], groups: int = 1) -> list[Part]:
    """The parts of maps whose outputs a file holds as one, in this order within every group."""
    return [Part(sum(sizes[:i]), size, sum(sizes), groups) for i, size in enumerate(sizes)]
