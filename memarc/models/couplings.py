"""The reversible couplings of two streams as data (MEFT, Liao et al. 2023, arXiv:2306.00477).

A layer maps (x1, x2) to

    y1 = a x1 + F(x2),   y2 = b x2 + G(y1),   and swaps them where the coupling says so,

so that  x2 = (y2 - G(y1)) / b,   x1 = (y1 - F(x2)) / a. A centred coupling has a (x1 - x2) in
place of a x1: its coefficients sum to one, so a residual stream does not grow with depth.

A signed one (BDIA, Zhang et al. 2024, arXiv:2407.09093) has no G and draws c = +-1/2 for every
example and layer: y1 = c x1 + F(x2) + c (F(x2) - 2 x2). Its mean is F(x2), and without signs it is
exactly that: the ordinary network.

Axes: B batch, T tokens, S slots of a cache, D width.
"""

import dataclasses

import jax

from memarc.models.adapter import in_series, run
from memarc.models.config import BackboneConfig
from memarc.models.layers import Attention, Cache, FeedForward, Norm, apply
from memarc.typing import Array, Params


@dataclasses.dataclass(frozen=True)
class Branch:
    """An F or a G: the pre-trained attention block or none, then what reads its output.

    ``adapter`` says where the adapter is: "parallel" to the pre-trained feed-forward block, which
    follows; in "series" with attention, and nothing follows; or "alone". Alone and parallel it
    reads what the feed-forward block reads: where a norm stands before that, normed states.
    """

    attends: bool
    adapter: str

    def __call__(
        self, config: BackboneConfig, adapter: Params, layer: Params, x: Array, mask: Array
    ) -> Array:
        """Maps x [B, T, D] under mask bool[B, T] to [B, T, D].

        Differentiated, the halves of a layer come one after the other: attention is computed again.
        """
        if not self.attends:
            return self._finish(config, adapter, layer, x, x)
        prepared = self._prepare(config, adapter, layer)

        def attend(x: Array) -> Array:
            return apply(Attention(config), prepared["attention"], x, mask)

        if self.adapter == "series":
            return attend(x)
        return self._finish(config, adapter, layer, x, jax.checkpoint(attend)(x))

    def extend(
        self,
        config: BackboneConfig,
        adapter: Params,
        layer: Params,
        x: Array,
        start: Array,
        cache: Cache,
    ) -> tuple[Array, Cache]:
        """The same of new tokens x [B, T, D] from slot ``start`` int32[B] on, over a cache."""
        if not self.attends:
            return self._finish(config, adapter, layer, x, x), cache
        prepared = self._prepare(config, adapter, layer)
        attended, cache = apply(
            Attention(config), prepared["attention"], x, start, cache, method="extend"
        )
        return self._finish(config, adapter, layer, x, attended), cache

    def _prepare(self, config: BackboneConfig, adapter: Params, layer: Params) -> Params:
        return in_series(layer, "attention", adapter, config) if self.adapter == "series" else layer

    def _finish(
        self, config: BackboneConfig, adapter: Params, layer: Params, x: Array, attended: Array
    ) -> Array:
        """What follows attention, of its input and its output [B, T, D]."""
        if self.adapter == "series":
            return attended
        read = x if config.parts.is_parallel else attended
        is_normed = "before" in config.parts.norms
        normed = apply(Norm(config), layer["feed_forward"]["norm"], read) if is_normed else read
        added = run(config, adapter, normed)
        if self.adapter == "alone":
            return added
        return apply(FeedForward(config), layer["feed_forward"], read, attended + added)


_WHOLE_LAYER = Branch(attends=True, adapter="parallel")
_ATTENTION = Branch(attends=True, adapter="series")
_FEED_FORWARD = Branch(attends=False, adapter="parallel")
_ADAPTER = Branch(attends=False, adapter="alone")


@dataclasses.dataclass(frozen=True)
class Coupling:
    """F, G (or none), which streams are scaled by lambda, whether they swap, which is the newest.

    ``newest`` is the position, after a swap, of the stream that holds the layer's new state.
    """

    first: Branch
    second: Branch | None
    scale_first: bool
    scale_second: bool
    swap: bool
    newest: int
    centred: bool = False
    signed: bool = False

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the branches that have adapters."""
        return ("first",) if self.second is None else ("first", "second")

    def suits(self, config: BackboneConfig) -> bool:
        """Whether it computes layers of a backbone: none apart whose halves are side by side."""
        branches = (getattr(self, name) for name in self.branches)
        return not (config.parts.is_parallel and any(x.adapter == "series" for x in branches))


COUPLINGS = {
    "meft1": Coupling(_WHOLE_LAYER, _ADAPTER, True, False, True, newest=1),
    "centred": Coupling(_WHOLE_LAYER, _ADAPTER, True, False, True, newest=1, centred=True),
    "meft2": Coupling(_ADAPTER, _WHOLE_LAYER, False, True, True, newest=0),
    "bdia": Coupling(_WHOLE_LAYER, None, True, False, True, newest=1, signed=True),
    "meft3": Coupling(_ATTENTION, _FEED_FORWARD, True, True, False, newest=1),
}
