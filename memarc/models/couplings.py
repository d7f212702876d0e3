"""The reversible couplings of two streams as data (MEFT, Liao et al. 2023, arXiv:2306.00477).

A layer maps (x1, x2) to

    y1 = a x1 + F(x2),   y2 = b x2 + G(y1),   and swaps them where the coupling says so,

so that  x2 = (y2 - G(y1)) / b,   x1 = (y1 - F(x2)) / a. A centred coupling has a (x1 - x2) in
place of a x1: its coefficients sum to one, so a residual stream does not grow with depth.

A signed one (BDIA, Zhang et al. 2024, arXiv:2407.09093) has no G and draws c = +-1/2 for every
example and layer: y1 = c x1 + F(x2) + c (F(x2) - 2 x2). Its mean is F(x2), and without signs it is
exactly that: the ordinary network.

Axes: B batch, T tokens, D width.
"""

import dataclasses
from collections.abc import Callable

import jax

from memarc.models.adapter import in_series, run
from memarc.models.config import BackboneConfig
from memarc.models.layers import Layer, apply
from memarc.typing import Array, Params

Branch = Callable[[BackboneConfig, Params, Params, Array, Array], Array]
"""``(config, adapter, layer, x [B, T, D], mask bool[B, T]) -> [B, T, D]``: an F or a G."""


def whole_layer(config, adapter, layer, x, mask):
    """The pre-trained layer with an adapter parallel to its feed-forward block.

    Differentiated, its halves come one after the other: attention is computed again.
    """

    def attend(x):
        return apply(Layer(config), layer, x, mask, method="attend")

    return feed_forward_block(config, adapter, layer, jax.checkpoint(attend)(x), mask)


def adapter_alone(config, adapter, layer, x, mask):
    """An adapter and nothing else: about zero at the start."""
    del layer, mask
    return run(config, adapter, x)


def attention_block(config, adapter, layer, x, mask):
    """The pre-trained attention block with an adapter on its output."""
    layer = in_series(layer, "attention", adapter, config)
    return apply(Layer(config), layer, x, mask, method="attend")


def feed_forward_block(config, adapter, layer, x, mask):
    """The pre-trained feed-forward block with an adapter parallel to it."""
    del mask
    return apply(Layer(config), layer, x, x + run(config, adapter, x), method="feed")


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


COUPLINGS = {
    "meft1": Coupling(whole_layer, adapter_alone, True, False, True, newest=1),
    "centred": Coupling(whole_layer, adapter_alone, True, False, True, newest=1, centred=True),
    "meft2": Coupling(adapter_alone, whole_layer, False, True, True, newest=0),
    "bdia": Coupling(whole_layer, None, True, False, True, newest=1, signed=True),
    "meft3": Coupling(attention_block, feed_forward_block, True, True, False, newest=1),
}
