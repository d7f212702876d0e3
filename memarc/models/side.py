"""A ladder side network beside a frozen backbone (DP-MemArc_side; method of arXiv:2206.06522).

The backbone runs once, batched and outside differentiation; only the narrow ladder is
differentiated. With h_0 the embeddings and h_i the output of backbone layer i:

    s_0 = D_0 h_0,   u_i = mu_i s_{i-1} + (1 - mu_i) D_i h_i,   s_i = SideLayer_i(u_i),
    mu_i = sigmoid(alpha_i / tau),   out = U LN(s_N)  or  h_N + U LN(s_N).

Axes: B batch, T tokens, D backbone width, S side width, M ladder layers.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from memarc.models import backbone, side_start
from memarc.models.config import BackboneConfig
from memarc.models.layers import Cache, Dense, Layer, Norm, apply
from memarc.ops.linear import elementwise
from memarc.ops.taps import use
from memarc.typing import Array, Batch, Params, PyTree

GATE_TEMPERATURE = 0.1  # tau of the published code.


@dataclasses.dataclass(frozen=True)
class Side:
    """Freezes the backbone and trains a ladder of narrow layers on its states.

    Attributes:
      config: Sizes of the backbone.
      reduction: k; the side width is S = D / k, its feed-forward width F / k.
      layers: Backbone layers (0-based) that get a side layer; empty means all of them.
      start: "pruned" cuts the side layers out of the backbone's weights by magnitude, "random"
        draws them. Both read public weights only.
      merge: "add" reads h_N + U LN(s_N) with U zero at the start, so that training starts from
        the pre-trained states; "replace" reads U LN(s_N) alone, as published.
      downsample: "trained" trains every D_i; "frozen" keeps them as at the start, so that only
        S-wide states are kept for the backward pass.
    """

    config: BackboneConfig
    reduction: int = 8
    layers: tuple[int, ...] = ()
    start: str = "pruned"
    merge: str = "add"
    downsample: str = "trained"

    def __post_init__(self) -> None:
        """Checks every option."""
        for field, choices in (
            ("start", ("pruned", "random")),
            ("merge", ("add", "replace")),
            ("downsample", ("trained", "frozen")),
        ):
            if getattr(self, field) not in choices:
                given = getattr(self, field)
                raise ValueError(f"side {field} is {given!r}; choose one of {choices}.")
        kept, last = self.kept, self.config.layers - 1
        if list(kept) != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] <= last:
            raise ValueError(f"side layers {kept} must be increasing and within 0..{last}.")
        side_config(self.config, self.reduction, kept)  # Refuses a wrong reduction.

    @property
    def needs_coins(self) -> bool:
        """No: nothing is drawn while it trains."""
        return False

    @property
    def kept(self) -> tuple[int, ...]:
        """The M backbone layers that have a side layer."""
        return tuple(self.layers) or tuple(range(self.config.layers))

    @property
    def narrow(self) -> BackboneConfig:
        """Sizes of the ladder."""
        return side_config(self.config, self.reduction, self.kept)

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Builds a ladder; its projections are among the drawn parameters if they are frozen."""
        ladder = side_start.draw(
            key, self.config, self.narrow, params, self.kept, self.start, self.merge
        )
        names = () if self.downsample == "trained" else ("first", "down")
        drawn = {name: ladder.pop(name) for name in names}
        return ladder, {"backbone": params, "drawn": drawn}

    def precompute(self, frozen: Params, batch: Batch) -> Batch:
        """Runs the backbone, and adds what the ladder reads to the batch.

        That is "rungs", [B, M + 1, T, D], or [.., S] where the projections are frozen; and "last",
        [B, T, D], where states are added to the ladder's end.
        """
        params = frozen["backbone"]
        hidden = backbone.embed(self.config, params, batch)
        first, read, readers = self._reading(frozen, hidden)
        layers, mask = backbone.layers_of(self.config, params), backbone.token_mask(batch)
        last, rungs = backbone.read_states(self.config, layers, hidden, mask, read, readers)
        rungs = jnp.moveaxis(self._kept_rungs(first, rungs), 1, 0)
        more = {"last": last} if self.merge == "add" else {}
        return {**batch, "rungs": rungs, **more}

    def states(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Climbs the ladder, and adds its end, widened, to the last state or puts it there."""
        del frozen
        rungs = self._projected(trainable, jnp.moveaxis(batch["rungs"], 0, 1))
        out = climb(self.narrow, trainable, rungs, backbone.token_mask(batch))
        return self._merged(trainable, batch["last"] if self.merge == "add" else None, out)

    def parameters(self, trainable: Params, frozen: Params) -> Params:
        """Returns the backbone's own parameters; the ladder stands beside them."""
        del trainable
        return frozen["backbone"]

    def extend(
        self, trainable: Params, frozen: Params, tokens: Array, start: Array, cache: PyTree
    ) -> tuple[Array, PyTree]:
        """Runs the backbone and the ladder over new tokens (`Method.extend`)."""
        params = frozen["backbone"]
        hidden = backbone.embed_more(self.config, params, tokens, start)
        first, read, readers = self._reading(frozen, hidden)
        layers = backbone.layers_of(self.config, params)
        last, rungs, below = backbone.extend_layers(
            self.config, layers, hidden, start, cache["backbone"], read, readers
        )
        rungs = self._projected(trainable, self._kept_rungs(first, rungs))
        out, above = climb_more(self.narrow, trainable, rungs, start, cache["ladder"])
        states = self._merged(trainable, last if self.merge == "add" else None, out)
        return states, {"backbone": below, "ladder": above}

    def empty_cache(self, rows: int, slots: int) -> PyTree:
        """Makes room for keys and values of the backbone and of the ladder."""
        return {
            name: backbone.empty_cache(config, config.layers, rows, slots)
            for name, config in (("backbone", self.config), ("ladder", self.narrow))
        }

    def check(self, trainable: Params, frozen: Params, batch: Batch) -> None:
        """Accepts every batch: a side network works on all."""
        del trainable, frozen, batch

    def chosen(self, frozen: Params) -> dict[str, float]:
        """Names nothing: the start is drawn or cut from the backbone, as the options say."""
        del frozen
        return {}

    def _reading(
        self, frozen: Params, hidden: Array
    ) -> tuple[Array, Callable[[Params, Array], Array], Params]:
        """What the first rung is, and how those of layers are read off their states."""
        if self.downsample == "trained":
            return hidden, _whole, ()
        down = frozen["drawn"]  # Projected layer by layer: never all, D wide.
        dense = Dense(self.config.width, self.narrow.width)
        nearest = np.searchsorted(self.kept[:-1], np.arange(self.config.layers))  # Some: not read.
        readers = jax.tree.map(lambda x: x[nearest], down["down"])
        return apply(dense, down["first"], hidden), partial(apply, dense), readers

    def _kept_rungs(self, first: Array, rungs: Array) -> Array:
        """The first rung [B, T, ..] and those of the kept layers, of all L: [M + 1, B, T, ..]."""
        return jnp.concatenate([first[None], rungs[jnp.asarray(self.kept)]])

    def _projected(self, trainable: Params, rungs: Array) -> Array:
        """Rungs [M + 1, B, T, S], of D wide ones where the projections are trained."""
        return rungs if self.downsample == "frozen" else _project(trainable, rungs)

    def _merged(self, trainable: Params, last: Array | None, out: Array) -> Array:
        """What the head reads, [B, T, D]: the ladder's end [B, T, S] widened, added to the last."""
        out = apply(Dense(self.narrow.width, self.config.width), trainable["up"], out)
        return out if last is None else last + out


def _whole(reader: Params, state: Array) -> Array:
    del reader
    return state


def _mix(gate: Array, state: Array, down: Array) -> Array:
    mu = jax.nn.sigmoid(gate / GATE_TEMPERATURE).astype(state.dtype)
    return mu * state + (1.0 - mu) * down


GATE = elementwise("gate", _mix)


def climb(narrow: BackboneConfig, ladder: Params, rungs: Array, mask: Array) -> Array:
    """Runs the ladder over projected rungs [M + 1, B, T, S]; returns LN(s_N), [B, T, S]."""

    def step(state: Array, rung: tuple[Params, Array, Array]) -> tuple[Array, None]:
        layer, gate, down = rung
        return apply(Layer(narrow), layer, use(GATE, gate, state, down), mask), None

    xs = (backbone.layers_of(narrow, ladder), ladder["gate"], rungs[1:])
    state, _ = backbone.scan_layers(narrow, step, rungs[0], xs)
    return apply(Norm(narrow), ladder["norm"], state)


def climb_more(
    narrow: BackboneConfig, ladder: Params, rungs: Array, start: Array, cache: Cache
) -> tuple[Array, Cache]:
    """Climbs with new tokens that stand in slots from ``start`` on: ([B, T, S], cache)."""

    def step(state: Array, stacked: tuple[Params, Array, Array, Cache]) -> tuple[Array, Cache]:
        layer, gate, down, kept = stacked
        mixed = use(GATE, gate, state, down)
        return apply(Layer(narrow), layer, mixed, start, kept, method="extend")

    xs = (backbone.layers_of(narrow, ladder), ladder["gate"], rungs[1:], cache)
    state, cache = jax.lax.scan(step, rungs[0], xs)
    return apply(Norm(narrow), ladder["norm"], state), cache


def side_config(config: BackboneConfig, reduction: int, kept: tuple[int, ...]) -> BackboneConfig:
    """Sizes of the side layers of kept layers: widths divided by the reduction, as many heads.

    Raises:
      ValueError: If the reduction does not divide a width.
    """
    divided = {
        "width": config.width,
        "head width": config.head_width,
        "number of rotary pairs of a head": config.rotary_width // 2,
        "feed-forward width": config.feed_forward,
    }
    wrong = [f"the {key} {size}" for key, size in divided.items() if size % max(reduction, 1)]
    if reduction < 1 or wrong:
        raise ValueError(
            f"side reduction {reduction} must divide {' and '.join(wrong) or 'widths'}."
        )
    return dataclasses.replace(
        config,
        layers=len(kept),
        width=config.width // reduction,
        head_size=config.head_size // reduction,
        score_width=config.score_width / reduction,
        feed_forward=config.feed_forward // reduction,
        kind_of_layer=tuple(config.kind_of_layer[i] for i in kept if config.kind_of_layer),
    )


def _project(params: Params, rungs: Array) -> Array:
    """Downsamples rungs [M + 1, B, T, D] by D_0 .. D_M to [M + 1, B, T, S]."""
    down = Dense(*params["first"]["kernel"].shape)
    first = apply(down, params["first"], rungs[0])[None]
    rest = jax.vmap(lambda p, x: apply(down, p, x))(params["down"], rungs[1:])
    return jnp.concatenate([first, rest])
