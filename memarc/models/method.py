"""What a tuning method is: how parameters split, what needs no gradient, what the head reads.

Axes: B batch, T tokens, S slots of a cache, D width, L layers.
"""

import abc
import dataclasses
from typing import Protocol

from memarc.models import backbone
from memarc.models.config import BackboneConfig
from memarc.typing import Array, Batch, Params, PyTree


class Method(Protocol):
    """One way to tune a backbone.

    A method is a frozen dataclass: its first field is the backbone's config, the others are its
    options, which have defaults and are checked when it is made. Trainable parameters are a tree of
    the method's own. Frozen ones have the same top level for all methods: "backbone" holds those of
    the backbone's parameters that are not trained, and "drawn" all others, such as a random
    projection that stays as it was drawn. So whoever keeps the trainable and the drawn ones can
    build the tuned model again from the public backbone.
    """

    @property
    def config(self) -> BackboneConfig:
        """Sizes of the backbone."""
        ...

    @property
    def needs_coins(self) -> bool:
        """Whether training batches must hold `memarc.batches.COINS`; others never do."""
        ...

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Splits the backbone's parameters and draws new ones.

        It reads public weights only and is given no data, so no start can depend on private rows.

        Args:
          key: A key of `jax.random`; no leaf of ``frozen["backbone"]`` depends on it.
          params: The backbone's parameters; each leaf is handed on, untouched, to one place.

        Returns:
          Trainable and frozen parameters.
        """
        ...

    def precompute(self, frozen: Params, batch: Batch) -> Batch:
        """Does the part of the forward pass that no gradient crosses.

        It runs batched, outside differentiation, and adds its results to the batch.
        """
        ...

    def states(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes the states that the head reads, [B, T, D], of a batch after `precompute`."""
        ...

    def parameters(self, trainable: Params, frozen: Params) -> Params:
        """Joins the backbone's parameters; kernels may be structured (`memarc.ops.linear`).

        A language model reads the last norm and the output table off them.
        """
        ...

    def extend(
        self, trainable: Params, frozen: Params, tokens: Array, start: Array, cache: PyTree
    ) -> tuple[Array, PyTree]:
        """Computes the states of new tokens; earlier ones are in the cache. Of decoders only.

        Args:
          trainable: The parameters that `init` gives first.
          frozen: The parameters that `init` gives second.
          tokens: int32[B, T], which stand in slots from ``start`` on.
          start: int32[B].
          cache: The result of `empty_cache`, or of an earlier call.

        Returns:
          States [B, T, D], and the cache with the new tokens.
        """
        ...

    def empty_cache(self, rows: int, slots: int) -> PyTree:
        """Makes a cache of B rows and S slots, whose leaves lead with [layers, B]."""
        ...

    def check(self, trainable: Params, frozen: Params, batch: Batch) -> None:
        """Raises ValueError if the network cannot work on a batch before `precompute`.

        The batch must be public: raising on a private one would reveal it.
        """
        ...

    def chosen(self, frozen: Params) -> dict[str, float]:
        """Names what `init` chose from the public weights, for a run's record."""
        ...


@dataclasses.dataclass(frozen=True)
class OfParameters(abc.ABC):
    """A method that runs the backbone itself, with other parameters or structured kernels.

    Attributes:
      config: Sizes of the backbone.
    """

    config: BackboneConfig

    @property
    def needs_coins(self) -> bool:
        """No: nothing is drawn while it trains."""
        return False

    @abc.abstractmethod
    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Splits the parameters and draws new ones (`Method.init`)."""

    @abc.abstractmethod
    def parameters(self, trainable: Params, frozen: Params) -> Params:
        """Joins the parameters that the backbone runs with (`Method.parameters`)."""

    def precompute(self, frozen: Params, batch: Batch) -> Batch:
        """Leaves the batch as it is: a gradient crosses the whole forward pass."""
        del frozen
        return batch

    def states(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Runs the backbone on an untouched batch: its last states, [B, T, D]."""
        return backbone.encode(self.config, self.parameters(trainable, frozen), batch)

    def extend(
        self, trainable: Params, frozen: Params, tokens: Array, start: Array, cache: PyTree
    ) -> tuple[Array, PyTree]:
        """Runs the backbone over new tokens (`Method.extend`)."""
        params = self.parameters(trainable, frozen)
        layers = backbone.layers_of(self.config, params)
        hidden = backbone.embed_more(self.config, params, tokens, start)
        return backbone.extend_plainly(self.config, layers, hidden, start, cache)

    def empty_cache(self, rows: int, slots: int) -> PyTree:
        """Makes room for keys and values of every layer."""
        return backbone.empty_cache(self.config, self.config.layers, rows, slots)

    def check(self, trainable: Params, frozen: Params, batch: Batch) -> None:
        """Accepts every batch: the backbone works on all."""
        del trainable, frozen, batch

    def chosen(self, frozen: Params) -> dict[str, float]:
        """Names nothing: `init` splits and draws, and chooses nothing."""
        del frozen
        return {}
