"""A model: a tuning method and the head that turns its states into losses.

Axes: B batch.
"""

import abc
import dataclasses
from typing import ClassVar

from memarc.models.method import Method
from memarc.typing import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Model(abc.ABC):
    """What is trained: losses of examples as functions of parameters (`memarc.typing.LossFn`).

    Trainable parameters have the same top level for all models: "tuning" holds those of the method,
    and "head", where the model has a head of its own, those of the head. Frozen ones are the
    method's (`memarc.models.method.Method`).

    Attributes:
      method: How the backbone is tuned.
      kind: The kind of the batches that the model reads (`memarc.batches`).
    """

    method: Method

    kind: ClassVar[str]

    @property
    def needs_coins(self) -> bool:
        """Whether training batches must hold `memarc.batches.COINS`; others never do."""
        return self.method.needs_coins

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Makes the start from public weights.

        Args:
          key: A key of `jax.random`.
          params: The backbone's parameters; each leaf is handed on, untouched, to one place.

        Returns:
          Trainable and frozen parameters.
        """
        trainable, frozen = self.method.init(key, params)
        return {"tuning": trainable}, frozen

    def precompute(self, frozen: Params, batch: Batch) -> Batch:
        """Does the part of the forward pass that no gradient crosses (`Method.precompute`)."""
        return self.method.precompute(frozen, batch)

    @abc.abstractmethod
    def loss(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes losses in nats, float32[B], of a batch after `precompute`; none is coupled."""

    def check_start(self, trainable: Params, frozen: Params, batch: Batch) -> None:
        """Raises ValueError if the network cannot work on public rows (`Method.check`)."""
        self.method.check(trainable["tuning"], frozen, batch)
