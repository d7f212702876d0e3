"""Methods that train a subset of the backbone's own parameters: all, the biases, or the last ones.

``bitfit`` is DP-BiTFiT (Bu et al. 2022, arXiv:2210.00036): biases of dense maps and norms.

Axes: B batch, T tokens, D width.
"""

import abc
import dataclasses

from memarc.models import backbone, partition
from memarc.models.method import OfParameters
from memarc.typing import Array, Batch, Params


class Subset(OfParameters):
    """Trains the backbone's parameters whose path is chosen; nothing is drawn."""

    @abc.abstractmethod
    def is_trained(self, path: tuple[str, ...]) -> bool:
        """Whether the parameter at a path is trained."""

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """As of `Method`."""
        del key
        trainable, rest = partition.split(params, self.is_trained)
        return trainable, {"backbone": rest, "drawn": {}}

    def parameters(self, trainable: Params, frozen: Params) -> Params:
        """As of `Method`."""
        return partition.join(trainable, frozen["backbone"])


@dataclasses.dataclass(frozen=True)
class Full(Subset):
    """Trains every parameter of the backbone."""

    def is_trained(self, path: tuple[str, ...]) -> bool:
        """As of `Subset`."""
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
        """As of `Subset`."""
        return path[-1] == "bias"


@dataclasses.dataclass(frozen=True)
class Head(Subset):
    """Trains no layer; the states are computed outside differentiation.

    Of a decoder, the last norm and its own output table are trained (a tied one is the word table,
    and stays frozen); an encoder has neither.
    """

    def is_trained(self, path: tuple[str, ...]) -> bool:
        """As of `Subset`."""
        return path[0] == "final"

    def precompute(self, frozen: Params, batch: Batch) -> Batch:
        """As of `Method`: adds "states", [B, T, D], the whole of the forward pass."""
        return {**batch, "states": backbone.encode(self.config, frozen["backbone"], batch)}

    def states(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """As of `Method`."""
        del trainable, frozen
        return batch["states"]
