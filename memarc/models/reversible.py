"""A reversible network around a frozen backbone (DP-MemArc_rev; couplings of `couplings.py`).

Two full-width streams replace the hidden state of the top layers. Going back, each layer's inputs
are rebuilt from its outputs: in floats (`coupled.py`), or on fixed-point streams, bit for bit
(`exact.py`).

Axes: B batch, T tokens, D width, L reversible layers, K layers of a segment, R bottleneck.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memarc.batches import CLASSIFICATION, COINS, GENERATION, random
from memarc.models import backbone, coupled, coupled_cache, exact, exact_range
from memarc.models.adapter import check_bottleneck, init_stack
from memarc.models.config import BackboneConfig
from memarc.models.coupled import Network, Streams
from memarc.models.couplings import COUPLINGS
from memarc.ops import fixed_point
from memarc.ops.precision import wide
from memarc.typing import Array, Batch, Params, PyTree

_PUBLIC_ROWS, _PUBLIC_TOKENS = 8, 64
"""Random tokens on which the units of exact streams are chosen."""


@dataclasses.dataclass(frozen=True)
class Reversible:
    """Freezes the backbone, couples its top layers and trains the adapters in F and G.

    Attributes:
      config: Sizes of the backbone.
      coupling: A name of `COUPLINGS`.
      scale: lambda > 0. Small keeps the pre-trained function, large keeps the inverse sharp.
      bottleneck: R, width of every adapter.
      layers: How many of the top layers are reversible; 0 means all. The layers below run once,
        frozen and outside differentiation.
      anchor_every: K; divides the number of reversible layers.
      end: "newest" reads the stream that holds the last layer's state, "mean" both, as published.
      arithmetic: "float" inverts by subtraction and division, from anchors; "exact" on fixed-point
        streams, bit for bit at any depth (`memarc.models.exact`); lambda is then 2^-k, and K is
        not used.
    """

    config: BackboneConfig
    coupling: str = "centred"
    scale: float = 0.0625
    bottleneck: int = 16
    layers: int = 0
    anchor_every: int = 1
    end: str = "newest"
    arithmetic: str = "exact"

    def __post_init__(self) -> None:
        """Checks every option."""
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
        if not COUPLINGS[self.coupling].suits(self.config):
            suitable = [name for name, x in COUPLINGS.items() if x.suits(self.config)]
            raise ValueError(
                f"coupling is {self.coupling!r}, which takes the halves of a layer one after the "
                f"other; a {self.config.kind} backbone has them side by side: choose one of "
                f"{suitable}."
            )
        if self.arithmetic == "exact":
            exact.exponent(self.scale)
        self._check_depth()

    def _check_depth(self) -> None:
        if not 1 <= self.depth <= self.config.layers:
            raise ValueError(
                f"reversible layers is {self.layers}; the backbone has {self.config.layers}."
            )
        if self.anchor_every < 1 or self.depth % self.anchor_every:
            divisors = [k for k in range(1, self.depth + 1) if self.depth % k == 0]
            raise ValueError(
                f"anchor_every is {self.anchor_every}; it must divide the {self.depth} reversible "
                f"layers: choose one of {divisors}."
            )

    @property
    def needs_coins(self) -> bool:
        """Yes for a signed coupling, which draws its signs from them."""
        return self.network.coupling.signed

    @property
    def depth(self) -> int:
        """L, the number of reversible layers."""
        return self.layers or self.config.layers

    @property
    def network(self) -> Network:
        """The static part of the coupled layers."""
        return Network(self.config, COUPLINGS[self.coupling], self.scale, self.anchor_every)

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Draws a stack of adapters for each branch; all of the backbone is frozen.

        Exact streams get their units here: from public weights, on public tokens.
        """
        keys: dict[str, Array] = dict(zip(("first", "second"), jax.random.split(key), strict=True))
        adapters = {
            name: init_stack(self.config, self.bottleneck, self.depth, keys[name])
            for name in self.network.coupling.branches
        }
        drawn = {}
        if self.arithmetic == "exact":
            drawn["unit"] = jax.jit(self._units)(adapters, params)
        return adapters, {"backbone": params, "drawn": drawn}

    def precompute(self, frozen: Params, batch: Batch) -> Batch:
        """Adds "hidden", [B, T, D], the state below the reversible layers, to the batch."""
        params = frozen["backbone"]
        lower, _ = self._split(params)
        hidden, mask = backbone.embed(self.config, params, batch), backbone.token_mask(batch)
        return {**batch, "hidden": backbone.run_layers(self.config, lower, hidden, mask)}

    def states(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Runs the coupled layers, and reads their end off the streams."""
        given, hidden = self._arguments(trainable, frozen, batch), batch["hidden"]
        streams: Any
        if self.needs_coins and COINS not in batch:  # The ordinary network: no way back.
            streams = coupled.run_plainly(*given, coupled.start(hidden))
        elif self.arithmetic == "exact":
            streams = exact.run(*given, frozen["drawn"]["unit"], hidden)
        else:
            streams = coupled.run(*given, coupled.start(hidden))
        return self._finish(streams)

    def parameters(self, trainable: Params, frozen: Params) -> Params:
        """Returns the backbone's own parameters; the adapters stand beside them."""
        del trainable
        return frozen["backbone"]

    def extend(
        self, trainable: Params, frozen: Params, tokens: Array, start: Array, cache: PyTree
    ) -> tuple[Array, PyTree]:
        """Runs all layers over new tokens (`Method.extend`)."""
        params = frozen["backbone"]
        lower, upper = self._split(params)
        hidden = backbone.embed_more(self.config, params, tokens, start)
        hidden, below = backbone.extend_plainly(self.config, lower, hidden, start, cache["lower"])
        streams, above = coupled_cache.extend(
            self.network,
            trainable,
            upper,
            frozen["drawn"].get("unit"),
            hidden,
            start,
            cache["upper"],
        )
        return self._finish(streams), {"lower": below, "upper": above}

    def empty_cache(self, rows: int, slots: int) -> PyTree:
        """Makes room for keys and values of the lower layers and of branches that attend."""
        below = self.config.layers - self.depth
        return {
            "lower": backbone.empty_cache(self.config, below, rows, slots),
            "upper": coupled_cache.empty(self.network, self.depth, rows, slots),
        }

    def check(self, trainable: Params, frozen: Params, batch: Batch) -> None:
        """Raises ValueError if exact streams leave the fixed-point range."""
        if self.arithmetic == "exact":
            batch = jax.jit(self.precompute)(frozen, batch)
            given, unit = self._arguments(trainable, frozen, batch), frozen["drawn"]["unit"]
            exact_range.check_range(*given, unit, batch["hidden"])

    def chosen(self, frozen: Params) -> dict[str, float]:
        """Names how far exact streams reach, and the finest step of a channel."""
        if self.arithmetic != "exact":
            return {}
        unit = np.asarray(frozen["drawn"]["unit"])
        return {
            "exact_reach_of_median_channel": float(np.median(unit)) * fixed_point.LIMIT,
            "exact_reach_of_widest_channel": float(unit.max()) * fixed_point.LIMIT,
            "exact_finest_step": float(unit.min()),
        }

    def _units(self, adapters: Params, params: Params) -> Array:
        """The units of exact streams, float32[D], by random tokens (`exact_range.units`)."""
        kind = GENERATION if self.config.parts.is_decoder else CLASSIFICATION
        length = min(_PUBLIC_TOKENS, self.config.longest_sequence)
        batch = random(
            kind, jax.random.key(0), _PUBLIC_ROWS, length, vocab_size=self.config.vocab_size
        )
        frozen = {"backbone": params}
        batch = self.precompute(frozen, dict(batch))
        return exact_range.units(*self._arguments(adapters, frozen, batch), batch["hidden"])

    def _arguments(
        self, trainable: Params, frozen: Params, batch: Batch
    ) -> tuple[Network, Params, Params, Array, Array | None]:
        """What all runs take before their streams; the batch is precomputed."""
        _, upper = self._split(frozen["backbone"])
        return self.network, trainable, upper, backbone.token_mask(batch), self._signs(batch)

    def _split(self, params: Params) -> tuple[Params, Params]:
        """The stacked layers below the reversible ones, and these."""
        below, layers = self.config.layers - self.depth, backbone.layers_of(self.config, params)
        lower = jax.tree.map(lambda x: x[:below], layers)
        return lower, jax.tree.map(lambda x: x[below:], layers)

    def _signs(self, batch: Batch) -> Array | None:
        """Signs [L, B, 1, 1] from the batch's coins, zeros without them; None if not signed."""
        if not self.needs_coins:
            return None
        shape, dtype = batch["hidden"].shape, wide(batch["hidden"].dtype)
        if COINS in batch:
            signs = draw_signs(batch[COINS], self.depth).astype(dtype)
        else:
            signs = jnp.zeros((self.depth, shape[0], 1, 1), dtype)
        return signs.reshape(self.depth, shape[0], *[1] * (len(shape) - 1))

    def _finish(self, streams: Streams) -> Array:
        states = coupled.finish(self.network.coupling, self.end, streams)
        return states.astype(self.config.compute_dtype)


def draw_signs(coins: Array, depth: int) -> Array:
    """Fair signs, float32[L, B, 1, 1], from two random words a row, uint32[B, 2]."""
    keys = jax.random.wrap_key_data(coins, impl="threefry2x32")
    signs = jax.vmap(lambda key: jax.random.rademacher(key, (depth,), jnp.float32))(keys)
    return signs.T[:, :, None, None]
