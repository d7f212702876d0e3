"""A ladder side network beside a frozen backbone (DP-MemArc_side; method of arXiv:2206.06522).

The backbone runs once, batched and outside differentiation; only the narrow ladder is
differentiated. With h_0 the embeddings and h_i the output of backbone layer i:

    s_0 = D_0 h_0,   u_i = mu_i s_{i-1} + (1 - mu_i) D_i h_i,   s_i = SideLayer_i(u_i),
    mu_i = sigmoid(alpha_i / tau),   out = U LN(s_N)  or  h_N + U LN(s_N).

Axes: B batch, T tokens, D backbone width, S side width, M ladder layers.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from memarc.models import backbone, side_start
from memarc.models.config import BackboneConfig
from memarc.models.layers import Cache, Dense, Layer, apply, norm
from memarc.models.tuning import Tuning
from memarc.ops.linear import elementwise
from memarc.ops.taps import use

GATE_TEMPERATURE = 0.1  # tau of the published code.


@dataclasses.dataclass(frozen=True)
class SideOptions:
    """Shape and start of the ladder.

    Attributes:
      reduction: k; the side width is S = D / k, its feed-forward width F / k.
      layers: Backbone layers (0-based) that get a side layer; empty means all of them.
      start: "pruned" cuts the side layers out of the backbone's weights by magnitude, "random"
        draws them. Both read public weights only.
      merge: "add" reads h_N + U LN(s_N) with U zero at the start, so that training starts from
        the pre-trained states; "replace" reads U LN(s_N) alone, as published.
      downsample: "trained" trains every D_i; "frozen" keeps them as at the start, so that only
        S-wide states are kept for the backward pass.
    """

    reduction: int = 8
    layers: tuple[int, ...] = ()
    start: str = "pruned"
    merge: str = "add"
    downsample: str = "trained"

    def __post_init__(self):
        """Checks the names."""
        for field, choices in (
            ("start", ("pruned", "random")),
            ("merge", ("add", "replace")),
            ("downsample", ("trained", "frozen")),
        ):
            if getattr(self, field) not in choices:
                given = getattr(self, field)
                raise ValueError(f"side {field} is {given!r}; choose one of {choices}.")


def side(config: BackboneConfig, options: SideOptions) -> Tuning:
    """Freezes the backbone and trains a ladder of narrow layers on its states."""
    kept = _kept_layers(config, options)
    narrow = side_config(config, options.reduction, len(kept))

    def init(key, params):
        ladder = side_start.draw(key, config, narrow, params, kept, options.start, options.merge)
        if options.downsample == "trained":
            return ladder, {"backbone": params, "ladder": {}}
        down = {name: ladder.pop(name) for name in ("first", "down")}
        return ladder, {"backbone": params, "ladder": down}

    def reading(frozen, hidden):
        """What the first rung is, and how those of layers are read off their states."""
        if options.downsample == "trained":
            return hidden, _whole, ()
        down = frozen["ladder"]  # Projected layer by layer: never all, D wide.
        dense = Dense(config.width, narrow.width)
        nearest = np.searchsorted(kept[:-1], np.arange(config.layers))  # Others are not read.
        readers = jax.tree.map(lambda x: x[nearest], down["down"])
        return apply(dense, down["first"], hidden), partial(apply, dense), readers

    def precompute(frozen, batch):
        params = frozen["backbone"]
        hidden = backbone.embed(config, params, batch)
        first, read, readers = reading(frozen, hidden)
        last, rungs = backbone.read_states(
            config, params["layers"], hidden, backbone.token_mask(batch), read, readers
        )
        rungs = jnp.concatenate([first[None], rungs[jnp.asarray(kept)]])  # [M + 1, B, T, D or S]
        more = {"last": last} if options.merge == "add" else {}
        return {**batch, "rungs": jnp.moveaxis(rungs, 1, 0), **more}

    def merged(trainable, last, out):
        """What the head reads, [B, T, D], of the ladder's end [B, T, S]."""
        out = apply(Dense(narrow.width, config.width), trainable["up"], out)
        return last + out if options.merge == "add" else out

    def states(trainable, frozen, batch):
        rungs = jnp.moveaxis(batch["rungs"], 0, 1)
        if options.downsample == "trained":
            rungs = _project(trainable, rungs)
        out = climb(narrow, trainable, rungs, backbone.token_mask(batch))
        return merged(trainable, batch.get("last"), out)

    def extend(trainable, frozen, tokens, start, cache):
        params = frozen["backbone"]
        hidden = backbone.embed_more(config, params, tokens, start)
        first, read, readers = reading(frozen, hidden)
        last, rungs, below = backbone.extend_layers(
            config, params["layers"], hidden, start, cache["backbone"], read, readers
        )
        rungs = jnp.concatenate([first[None], rungs[jnp.asarray(kept)]])
        if options.downsample == "trained":
            rungs = _project(trainable, rungs)
        out, above = climb_more(narrow, trainable, rungs, start, cache["ladder"])
        return merged(trainable, last, out), {"backbone": below, "ladder": above}

    def empty_cache(rows, slots):
        return {
            "backbone": backbone.empty_cache(config, config.layers, rows, slots),
            "ladder": backbone.empty_cache(narrow, narrow.layers, rows, slots),
        }

    return Tuning(
        init,
        states,
        precompute,
        parameters=lambda trainable, frozen: frozen["backbone"],
        extend=extend,
        empty_cache=empty_cache,
    )


def _whole(reader, state):
    del reader
    return state


def _mix(gate, state, down):
    mu = jax.nn.sigmoid(gate / GATE_TEMPERATURE).astype(state.dtype)
    return mu * state + (1.0 - mu) * down


GATE = elementwise("gate", _mix)


def climb(narrow: BackboneConfig, ladder, rungs, mask):
    """Runs the ladder over projected rungs [M + 1, B, T, S]; returns LN(s_N), [B, T, S]."""

    def step(state, rung):
        layer, gate, down = rung
        return apply(Layer(narrow), layer, use(GATE, gate, state, down), mask), None

    state, _ = backbone.scan_layers(
        narrow, step, rungs[0], (ladder["layers"], ladder["gate"], rungs[1:])
    )
    return apply(norm(narrow), ladder["norm"], state)


def climb_more(narrow: BackboneConfig, ladder, rungs, start, cache: Cache):
    """Climbs with new tokens that stand in slots from ``start`` on: ([B, T, S], cache)."""

    def step(state, stacked):
        layer, gate, down, kept = stacked
        mixed = use(GATE, gate, state, down)
        return apply(Layer(narrow), layer, mixed, start, kept, method="extend")

    xs = (ladder["layers"], ladder["gate"], rungs[1:], cache)
    state, cache = jax.lax.scan(step, rungs[0], xs)
    return apply(norm(narrow), ladder["norm"], state), cache


def side_config(config: BackboneConfig, reduction: int, layers: int) -> BackboneConfig:
    """Sizes of a side layer: widths divided by the reduction, the number of heads unchanged."""
    divided = (config.head_width, config.feed_forward)
    if reduction < 1 or any(size % reduction for size in divided):
        raise ValueError(
            f"side reduction {reduction} must divide the head width {divided[0]} and the "
            f"feed-forward width {divided[1]}."
        )
    return dataclasses.replace(
        config,
        layers=layers,
        width=config.width // reduction,
        feed_forward=config.feed_forward // reduction,
    )


def _project(params, rungs):
    """Downsamples rungs [M + 1, B, T, D] by D_0 .. D_M to [M + 1, B, T, S]."""
    down = Dense(*params["first"]["kernel"].shape)
    first = apply(down, params["first"], rungs[0])[None]
    rest = jax.vmap(lambda p, x: apply(down, p, x))(params["down"], rungs[1:])
    return jnp.concatenate([first, rest])


def _kept_layers(config, options) -> tuple[int, ...]:
    """The ladder's backbone layers, checked."""
    kept = tuple(options.layers) or tuple(range(config.layers))
    if list(kept) != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < config.layers:
        raise ValueError(
            f"side layers {kept} must be increasing and within 0..{config.layers - 1}."
        )
    return kept
