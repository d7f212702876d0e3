"""Methods that train a subset of the backbone's own parameters: all, the biases, or the last ones.

``bitfit`` is DP-BiTFiT (Bu et al. 2022, arXiv:2210.00036): biases of dense maps and norms.

Axes: B batch, T tokens, D width.
"""

import abc
import dataclasses

from flax import traverse_util

from memarc.models import backbone, partition
from memarc.models.method import OfParameters
from memarc.ops.quantised import QuantisedKernel
from memarc.typing import Array, Batch, Params


class Subset(OfParameters):
    """Trains the backbone's parameters whose path is chosen; nothing is drawn."""

    @abc.abstractmethod
    def is_trained(self, path: tuple[str, ...]) -> bool:
        """Whether the parameter at a path is trained."""

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Splits off the chosen parameters; no key is needed."""
        del key
        trainable, rest = partition.split(params, self.is_trained)
        for path, leaf in traverse_util.flatten_dict(trainable).items():
            if isinstance(leaf, QuantisedKernel):
                raise ValueError(
                    f"{type(self).__name__} trains {'/'.join(path)}, which model.storage_dtype "
                    f"holds in blocks of {leaf.codes.dtype}; rounding would undo its updates. Give "
                    "a method that freezes the matrices of layers, such as 'lora' or 'reversible', "
                    "or storage 'float32' or 'bfloat16'."
                )
        return trainable, {"backbone": rest, "drawn": {}}

    def parameters(self, trainable: Params, frozen: Params) -> Params:
        """Joins the two parts again."""
        return partition.join(trainable, frozen["backbone"])


@dataclasses.dataclass(frozen=True)
class Full(Subset):
    """Trains every parameter of the backbone."""

    def is_trained(self, path: tuple[str, ...]) -> bool:
        """All are."""
        del path
        return True


@dataclasses.dataclass(frozen=True)
class Bitfit(Subset):
    """Trains the biases of all dense maps and norms."""

    def __post_init__(self) -> None:
        """Checks that the backbone has biases."""
        if not self.config.parts.has_biases:
            raise ValueError(
                f"Method 'bitfit' trains biases; a {self.config.kind} backbone has none."
            )

    def is_trained(self, path: tuple[str, ...]) -> bool:
        """Biases are."""
        return path[-1] == "bias"


@dataclasses.dataclass(frozen=True)
class Head(Subset):
    """Trains no layer; the states are computed outside differentiation.

    Of a decoder, the last norm and its own output table are trained (a tied one is the word table,
    and stays frozen); so is an encoder's last norm. A masked-language head's transform is frozen.
    """

    def is_trained(self, path: tuple[str, ...]) -> bool:
        """What stands after the layers is, but for a masked-language head's transform."""
        return path[0] == "final" and path[1] != "transform"

    def precompute(self, frozen: Params, batch: Batch) -> Batch:
        """Runs the backbone, and adds "states", [B, T, D], to the batch."""
        return {**batch, "states": backbone.encode(self.config, frozen["backbone"], batch)}

    def states(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Reads the states, [B, T, D], off the batch."""
        del trainable, frozen
        return batch["states"]
