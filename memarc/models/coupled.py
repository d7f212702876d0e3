"""Two coupled streams of layers in floats: forward, and backward by rebuilding what was read.

The backward pass rebuilds each layer's inputs from its outputs, so nothing that grows with depth is
kept but the anchors: the streams after every K-th layer, from which each segment's inversion
starts afresh. (A float inversion multiplies rounding errors by about 1/lambda a layer; anchors
bound that.)

Axes: B batch, T tokens, D width, L coupled layers, K layers of a segment.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memarc.models.config import BackboneConfig
from memarc.models.couplings import Coupling
from memarc.ops.precision import wide
from memarc.typing import Array, Params, PyTree

Streams = tuple[Array, Array]
"""(x1, x2), each float32[B, T, D] (float64 in tests)."""

Residuals = tuple[Params, Params, Array, Array | None, Streams]
"""Adapters, layers, mask and signs as given, and the anchors, stacked on L / K."""


def start(hidden: Array) -> Streams:
    """Starts both streams as the hidden state [B, T, D], in float32 (or wider)."""
    stream = hidden.astype(wide(hidden.dtype))
    return stream, stream


def finish(coupling: Coupling, end: str, streams: Streams) -> Array:
    """Reads [B, T, D] off the final streams: the "newest" one, or the "mean" of both."""
    if end == "newest":
        return streams[coupling.newest]
    return 0.5 * (streams[0] + streams[1])


@dataclasses.dataclass(frozen=True)
class Network:
    """The static part of a reversible network. Signs are [B, 1, 1], or None if not signed.

    Attributes:
      config: Sizes of the backbone.
      coupling: What a layer does with its streams.
      scale: lambda.
      anchor_every: K, of the float run; it divides the number of layers.
    """

    config: BackboneConfig
    coupling: Coupling
    scale: float
    anchor_every: int

    def factors(self, sign: Array | None) -> tuple[Any, float]:
        """(a, b) of the coupling; a is [B, 1, 1] if it is signed."""
        coupling = self.coupling
        a = self.scale if coupling.scale_first else 1.0
        return (
            a if sign is None else a * sign,
            self.scale if coupling.scale_second else 1.0,
        )

    def branch(
        self, which: str, adapters: Params, layer: Params, x: Array, mask: Array, sign: Array | None
    ) -> Array:
        """F ("first") or G ("second") of one layer, computed in the backbone's dtype."""
        function = getattr(self.coupling, which)
        y = function(self.config, adapters[which], layer, x.astype(self.config.compute_dtype), mask)
        y = y.astype(x.dtype)
        return y + self.factors(sign)[0] * (y - 2.0 * x) if self.coupling.signed else y

    def forward(
        self, adapters: Params, layer: Params, mask: Array, sign: Array | None, streams: Streams
    ) -> Streams:
        """One coupled layer, in floats."""

        def branch(which: str, x: Array) -> Array:
            return self.branch(which, adapters, layer, x, mask, sign)

        return self.couple(branch, sign, streams)

    def couple(
        self, branch: Callable[[str, Array], Array], sign: Array | None, streams: Streams
    ) -> Streams:
        """The coupling of one layer whose F and G are given, in floats."""
        (a, b), (x1, x2) = self.factors(sign), streams
        centre = x2 if self.coupling.centred else jnp.zeros_like(x2)
        y1 = a * (x1 - centre) + branch("first", x2)
        y2 = b * x2
        if self.coupling.second:
            y2 = y2 + branch("second", y1)
        return (y2, y1) if self.coupling.swap else (y1, y2)


def layer_backward(
    net: Network,
    adapters: Params,
    layer: Params,
    mask: Array,
    sign: Array | None,
    streams: Streams,
    cotangents: Streams,
) -> tuple[Streams, Streams, Params]:
    """Inverts one coupled layer and pulls cotangents back through it, F and G run once each.

    Returns:
      The layer's input streams, their cotangents, and the adapters' gradient.
    """
    (a, b), swap = net.factors(sign), net.coupling.swap
    y1, y2 = streams[::-1] if swap else streams
    d1, d2 = cotangents[::-1] if swap else cotangents

    def pulled(which: str, x: Array) -> tuple[Array, Callable[[Array], tuple[Params, Array]]]:
        def branch(theta: Params, x: Array) -> Array:
            return net.branch(which, {which: theta}, layer, x, mask, sign)

        return jax.vjp(branch, adapters[which], x)

    gradient, x2 = {}, y2 / b
    if net.coupling.second:
        g, pull_g = pulled("second", y1)
        x2 = (y2 - g) / b
        gradient["second"], through_g = pull_g(d2)
        d1 = d1 + through_g
    f, pull_f = pulled("first", x2)
    x1 = (y1 - f) / a
    straight = b * d2
    if net.coupling.centred:
        x1, straight = x1 + x2, straight - a * d1
    gradient["first"], through_f = pull_f(d1)
    return (x1, x2), (a * d1, straight + through_f), gradient


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    streams: Streams,
) -> Streams:
    """Runs stacked coupled layers; keeps only anchors for the backward pass.

    Args:
      net: The static part.
      adapters: By branch, stacked on a leading axis L; differentiated.
      layers: The frozen backbone layers, stacked on L; they get no gradient.
      mask: bool[B, T], True where a token is real.
      signs: [L, B, 1, 1] of a signed coupling, else None.
      streams: The input streams; differentiated.

    Returns:
      The output streams.
    """
    return _run_forward(net, adapters, layers, mask, signs, streams)[0]


def run_plainly(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    streams: Streams,
) -> Streams:
    """Does as `run`, but leaves the derivative to autodiff, which keeps all that each layer read.

    It is what a signed coupling without signs runs as, and the reference that tests compare with.
    """

    def step(carry: Streams, stacked: tuple[Params, Params, Array | None]) -> tuple[Streams, None]:
        adapter, layer, sign = stacked
        return net.forward(adapter, layer, mask, sign, carry), None

    return jax.lax.scan(step, streams, (adapters, layers, signs))[0]


def _run_forward(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    streams: Streams,
) -> tuple[Streams, Residuals]:
    def segment(
        carry: Streams, stacked: tuple[Params, Params, Array | None]
    ) -> tuple[Streams, Streams]:
        some_adapters, some_layers, some_signs = stacked
        carry = run_plainly(net, some_adapters, some_layers, mask, some_signs, carry)
        return carry, carry

    last, anchors = jax.lax.scan(segment, streams, _segments(net, (adapters, layers, signs)))
    return last, (adapters, layers, mask, signs, anchors)


def _run_backward(
    net: Network, residuals: Residuals, cotangents: Streams
) -> tuple[Params, None, None, None, Streams]:
    adapters, layers, mask, signs, anchors = residuals

    def step(
        carry: tuple[Streams, Streams], stacked: tuple[Params, Params, Array | None]
    ) -> tuple[tuple[Streams, Streams], Params]:
        (streams, cotangents), (adapter, layer, sign) = carry, stacked
        streams, cotangents, gradient = layer_backward(
            net, adapter, layer, mask, sign, streams, cotangents
        )
        return (streams, cotangents), gradient

    def segment(cotangents: Streams, stacked: tuple[PyTree, Streams]) -> tuple[Streams, Params]:
        inputs, anchor = stacked
        (_, cotangents), gradient = jax.lax.scan(step, (anchor, cotangents), inputs, reverse=True)
        return cotangents, gradient

    cotangents, gradient = jax.lax.scan(
        segment, cotangents, (_segments(net, (adapters, layers, signs)), anchors), reverse=True
    )
    gradient = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), gradient)
    return gradient, None, None, None, cotangents


run.defvjp(_run_forward, _run_backward)


def _segments(net: Network, stacked: PyTree) -> PyTree:
    """Folds the leading axis L into [L / K, K]."""
    size = net.anchor_every
    return jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), stacked)
