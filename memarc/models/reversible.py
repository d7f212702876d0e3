"""A reversible network around a frozen backbone (DP-MemArc_rev; couplings of `couplings.py`).

Two full-width streams replace the hidden state. The backward pass rebuilds each layer's inputs
from its outputs, so nothing that grows with depth is kept but the anchors: the streams after
every K-th layer, from which each segment's inversion starts afresh. (A float inversion
multiplies rounding errors by about 1/lambda a layer; anchors bound that.)

Axes: B batch, T tokens, D width, L reversible layers, K layers of a segment, R bottleneck.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from memarc.models import backbone, coupled_cache, exact
from memarc.models.adapter import check_bottleneck, init_stack
from memarc.models.config import BackboneConfig
from memarc.models.couplings import COUPLINGS, Coupling
from memarc.models.tuning import COINS, Tuning
from memarc.ops.precision import wide
from memarc.typing import Array, Params

Streams = tuple[Array, Array]
"""(x1, x2), each float32[B, T, D] (float64 in tests)."""


@dataclasses.dataclass(frozen=True)
class ReversibleOptions:
    """Coupling and extent of the reversible network.

    Attributes:
      coupling: A name of `COUPLINGS`.
      scale: lambda > 0. Small keeps the pre-trained function, large keeps the inverse sharp.
      bottleneck: R, width of every adapter.
      layers: How many of the top layers are reversible; 0 means all. The layers below run once,
        frozen and outside differentiation.
      anchor_every: K; divides the number of reversible layers.
      arithmetic: "float" inverts by subtraction and division, from anchors; "exact" on fixed-point
        streams, bit for bit at any depth (`memarc.models.exact`); lambda is then 2^-k, and K is
        not used.
      end: "newest" reads the stream that holds the last layer's state, "mean" both, as published.
    """

    coupling: str = "centred"
    scale: float = 0.0625
    bottleneck: int = 16
    layers: int = 0
    anchor_every: int = 1
    end: str = "newest"
    arithmetic: str = "exact"

    def __post_init__(self):
        """Checks what does not depend on the backbone."""
        check_bottleneck(self.bottleneck)
        if self.coupling not in COUPLINGS:
            raise ValueError(f"coupling is {self.coupling!r}; choose one of {list(COUPLINGS)}.")
        if self.end not in ("newest", "mean"):
            raise ValueError(f"end is {self.end!r}; choose 'newest' or 'mean'.")
        if self.arithmetic not in ("float", "exact"):
            raise ValueError(f"arithmetic is {self.arithmetic!r}; choose 'float' or 'exact'.")
        if not 0.0 < self.scale <= 1.0:
            raise ValueError(f"scale (lambda) is {self.scale}; it must be in (0, 1].")
        if COUPLINGS[self.coupling].signed and self.scale != 0.5:
            raise ValueError(
                f"scale (lambda) is {self.scale}; coupling {self.coupling!r} needs 0.5."
            )
        if self.arithmetic == "exact":
            exact.exponent(self.scale)


def reversible(config: BackboneConfig, options: ReversibleOptions) -> Tuning:
    """Freezes the backbone, couples its top layers and trains the adapters in F and G."""
    depth = _checked_depth(config, options)
    network = Network(config, COUPLINGS[options.coupling], options.scale, options.anchor_every)

    def init(key, params):
        keys: dict[str, Any] = dict(zip(("first", "second"), jax.random.split(key), strict=True))
        return {
            name: init_stack(config, options.bottleneck, depth, keys[name])
            for name in network.coupling.branches
        }, params

    def precompute(frozen, batch):
        lower, _ = split_layers(frozen["layers"], config.layers - depth)
        hidden, mask = backbone.embed(config, frozen, batch), backbone.token_mask(batch)
        return {**batch, "hidden": backbone.run_layers(config, lower, hidden, mask)}

    def arguments(trainable, frozen, batch):
        _, upper = split_layers(frozen["layers"], config.layers - depth)
        return network, trainable, upper, backbone.token_mask(batch), signs(batch)

    def states(trainable, frozen, batch):
        given = arguments(trainable, frozen, batch)
        streams: Any
        if network.coupling.signed and COINS not in batch:  # The ordinary network: no way back.
            streams = run_plainly(*given, start(batch["hidden"]))
        elif options.arithmetic == "exact":
            streams = exact.run(*given, batch["hidden"])
        else:
            streams = run(*given, start(batch["hidden"]))
        return finish(network.coupling, options.end, streams).astype(config.compute_dtype)

    def signs(batch):
        if not network.coupling.signed:
            return None
        shape, dtype = batch["hidden"].shape, wide(batch["hidden"].dtype)
        if COINS in batch:
            found = draw_signs(batch[COINS], depth).astype(dtype)
        else:
            found = jnp.zeros((depth, shape[0], 1, 1), dtype)
        return found.reshape(depth, shape[0], *[1] * (len(shape) - 1))

    def check(trainable, frozen, batch):
        exact.check_range(*arguments(trainable, frozen, batch), batch["hidden"])

    def extend(trainable, frozen, tokens, start, cache):
        hidden = backbone.embed_more(config, frozen, tokens, start)
        lower, upper = split_layers(frozen["layers"], config.layers - depth)
        hidden, _, below = backbone.extend_layers(
            config, lower, hidden, start, cache["lower"], lambda _, state: (), ()
        )
        streams, above = coupled_cache.extend(
            network, options.arithmetic, trainable, upper, hidden, start, cache["upper"]
        )
        states = finish(network.coupling, options.end, streams).astype(config.compute_dtype)
        return states, {"lower": below, "upper": above}

    def empty_cache(rows, slots):
        return {
            "lower": backbone.empty_cache(config, config.layers - depth, rows, slots),
            "upper": coupled_cache.empty(network, depth, rows, slots),
        }

    return Tuning(
        init,
        states,
        precompute,
        parameters=lambda trainable, frozen: frozen,
        extend=extend,
        empty_cache=empty_cache,
        check=check if options.arithmetic == "exact" else None,
        needs_coins=network.coupling.signed,
    )


def split_layers(layers: Params, below: int) -> tuple[Params, Params]:
    """The first ``below`` of stacked layers, and the rest."""
    lower = jax.tree.map(lambda x: x[:below], layers)
    return lower, jax.tree.map(lambda x: x[below:], layers)


def draw_signs(coins: Array, depth: int) -> Array:
    """Fair signs, float32[L, B, 1, 1], from two random words a row, uint32[B, 2]."""
    keys = jax.random.wrap_key_data(coins, impl="threefry2x32")
    signs = jax.vmap(lambda key: jax.random.rademacher(key, (depth,), jnp.float32))(keys)
    return signs.T[:, :, None, None]


def start(hidden: Array) -> Streams:
    """Both streams start as the hidden state, in float32 (or wider)."""
    stream = hidden.astype(wide(hidden.dtype))
    return stream, stream


def finish(coupling: Coupling, end: str, streams: Streams) -> Array:
    """Reads [B, T, D] off the final streams."""
    if end == "newest":
        return streams[coupling.newest]
    return 0.5 * (streams[0] + streams[1])


@dataclasses.dataclass(frozen=True)
class Network:
    """The static part of a reversible network. Signs are [B, 1, 1], or None if not signed."""

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

    def forward(self, adapters, layer, mask, sign, streams: Streams) -> Streams:
        """One coupled layer, in floats."""

        def branch(which, x):
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
    net: Network, adapters, layer, mask, sign, streams: Streams, cotangents: Streams
):
    """Inverts one coupled layer and pulls cotangents back through it, F and G run once each.

    Returns:
      The layer's input streams, their cotangents, and the adapters' gradient.
    """
    (a, b), swap = net.factors(sign), net.coupling.swap
    y1, y2 = streams[::-1] if swap else streams
    d1, d2 = cotangents[::-1] if swap else cotangents

    def pulled(which, x):
        def branch(theta, x):
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


def run_plainly(net: Network, adapters, layers, mask, signs, streams: Streams) -> Streams:
    """The same function left to plain autodiff: the reference that tests compare with."""

    def step(carry, stacked):
        adapter, layer, sign = stacked
        return net.forward(adapter, layer, mask, sign, carry), None

    return jax.lax.scan(step, streams, (adapters, layers, signs))[0]


def _run_forward(net, adapters, layers, mask, signs, streams):
    def segment(carry, stacked):
        some_adapters, some_layers, some_signs = stacked
        carry = run_plainly(net, some_adapters, some_layers, mask, some_signs, carry)
        return carry, carry

    last, anchors = jax.lax.scan(segment, streams, _segments(net, (adapters, layers, signs)))
    return last, (adapters, layers, mask, signs, anchors)


def _run_backward(net, residuals, cotangents):
    adapters, layers, mask, signs, anchors = residuals

    def step(carry, stacked):
        (streams, cotangents), (adapter, layer, sign) = carry, stacked
        streams, cotangents, gradient = layer_backward(
            net, adapter, layer, mask, sign, streams, cotangents
        )
        return (streams, cotangents), gradient

    def segment(cotangents, stacked):
        inputs, anchor = stacked
        (_, cotangents), gradient = jax.lax.scan(step, (anchor, cotangents), inputs, reverse=True)
        return cotangents, gradient

    cotangents, gradient = jax.lax.scan(
        segment, cotangents, (_segments(net, (adapters, layers, signs)), anchors), reverse=True
    )
    gradient = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), gradient)
    return gradient, None, None, None, cotangents


run.defvjp(_run_forward, _run_backward)


def _segments(net, stacked):
    """Folds the leading axis L into [L / K, K]."""
    size = net.anchor_every
    return jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), stacked)


def _checked_depth(config, options) -> int:
    """The number of reversible layers."""
    depth = options.layers or config.layers
    if not 1 <= depth <= config.layers:
        raise ValueError(
            f"reversible layers is {options.layers}; the backbone has {config.layers}."
        )
    if options.anchor_every < 1 or depth % options.anchor_every:
        divisors = [k for k in range(1, depth + 1) if depth % k == 0]
        raise ValueError(
            f"anchor_every is {options.anchor_every}; it must divide the {depth} reversible "
            f"layers: choose one of {divisors}."
        )
    return depth
