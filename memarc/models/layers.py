"""Dense maps, norms, attention and feed-forward blocks: the only layer mathematics.

Axes: B batch (or several batch axes), T tokens, S slots of a cache, D width, H heads, G key heads,
K width of a head, F feed-forward width, N buckets of distances.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memarc.models.attention import distance_buckets, dot_product_attention
from memarc.models.config import BackboneConfig, LayerKind
from memarc.models.rotary import turn
from memarc.ops.linear import add_trailing, linear, multiply_trailing, take_rows
from memarc.ops.precision import wide
from memarc.ops.sharded import whole
from memarc.typing import Array, Params

_INIT = nn.initializers.normal(0.02)

_tanh_gelu = partial(nn.gelu, approximate=True)
_ACTIVATIONS = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_fast": _tanh_gelu,  # Three names of one function.
    "gelu_new": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "relu": nn.relu,
    "silu": nn.silu,
}

Cache = dict[str, Array]
"""Keys and values of one layer, "key" and "value", each [B, S, G, K]."""

KIND = "kind"
"""Key beside attention's parameters: the layer's place in `BackboneConfig.layer_kinds`, int32[].

It is no parameter; `memarc.models.backbone.layers_of` puts it there where layers differ.
"""


def activate(x: Array, name: str) -> Array:
    """Applies an activation by its name (`memarc.models.config.ACTIVATIONS`), elementwise."""
    return _ACTIVATIONS[name](x)


def apply(module: nn.Module, params: Params, *args: Any, method: str = "__call__") -> Any:
    """Calls a module, or one of its methods, on a tree of its parameters, gathered if cut."""
    return module.apply({"params": whole(params)}, *args, method=method)


class Dense(nn.Module):
    """A linear map; accepts a structured kernel (`memarc.ops.linear`)."""

    inputs: int  # Stated, not read off x: a structured kernel may take a wider input.
    features: int
    has_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., I] to [..., O]."""
        kernel = self.param("kernel", _INIT, (self.inputs, self.features))
        if not self.has_bias:
            return linear(x, kernel)
        return linear(x, kernel, self.param("bias", nn.initializers.zeros, (self.features,)))


class Norm(nn.Module):
    """Normalises the last axis in float32; returns the dtype of its input.

    "layer": centred, scaled and shifted; "rms": scaled only (Zhang and Sennrich 2019,
    arXiv:1910.07467).
    """

    config: BackboneConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., D] to [..., D]."""
        parts = self.config.parts
        start = nn.initializers.zeros if parts.adds_one else nn.initializers.ones
        scale = self.param("scale", start, (x.shape[-1],))
        values = x.astype(wide(x.dtype))
        if parts.norm == "layer":
            values = values - values.mean(-1, keepdims=True)
        mean_square = (values**2).mean(-1, keepdims=True)
        values = values * jax.lax.rsqrt(mean_square + self.config.norm_epsilon)
        normed = multiply_trailing(values, scale)
        if parts.adds_one:
            normed = values + normed
        if parts.norm_bias:
            bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
            normed = add_trailing(normed, bias)
        return normed.astype(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with its residual and norms."""

    config: BackboneConfig

    def setup(self) -> None:
        """Names the maps and norms."""
        cfg, parts = self.config, self.config.parts
        inner, narrow = cfg.heads * cfg.head_width, cfg.key_heads * cfg.head_width
        self.query = Dense(cfg.width, inner, parts.query_bias)
        self.key = Dense(cfg.width, narrow, parts.query_bias)
        self.value = Dense(cfg.width, narrow, parts.query_bias)
        self.output = Dense(inner, cfg.width, parts.output_bias)
        if parts.query_norm:
            self.query_norm, self.key_norm = Norm(cfg), Norm(cfg)
        if cfg.distance_buckets:
            self.distance = self.param("distance", _INIT, (cfg.distance_buckets, cfg.heads))
        if "inside" in parts.norms:
            self.inner_norm = Norm(cfg)
        if parts.norms != ("inside",):
            self.norm = Norm(cfg)

    def __call__(self, hidden: Array, mask: Array) -> Array:
        """Maps hidden [B, T, D] under mask bool[B, T] (True: a real token) to [B, T, D]."""
        positions = count_up(hidden.shape[:-1])
        query, key, value = self._project(hidden, positions)
        mixed = self._attend(query, key, value, positions, mask, self.config.attention_block)
        return self._close(hidden, mixed)

    def extend(self, hidden: Array, start: Array, cache: Cache) -> tuple[Array, Cache]:
        """Attends from new tokens to themselves and to all that a cache holds of earlier ones.

        Args:
          hidden: [B, T, D], T tokens that stand in slots start .. start + T - 1 of their row.
          start: int32[B].
          cache: Slots after a token's own are never read, whatever they hold.

        Returns:
          [B, T, D], and the cache with the new tokens.
        """
        positions = start[:, None] + count_up(hidden.shape[:-1])
        query, key, value = self._project(hidden, positions)
        rows = jnp.arange(len(start))[:, None]
        cache = {
            "key": cache["key"].at[rows, positions].set(key),
            "value": cache["value"].at[rows, positions].set(value),
        }
        mixed = self._attend(query, cache["key"], cache["value"], positions, None, 0)
        return self._close(hidden, mixed), cache

    def _project(self, hidden: Array, positions: Array) -> tuple[Array, Array, Array]:
        """Queries [B, T, H, K], keys and values [B, T, G, K]."""
        x = self._read(hidden)
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.config.parts.query_norm == "whole":
            query, key = self.query_norm(query), self.key_norm(key)
        query, key, value = (
            y.reshape(*y.shape[:-1], -1, self.config.head_width) for y in (query, key, value)
        )
        if self.config.parts.query_norm == "head":
            query, key = self.query_norm(query), self.key_norm(key)
        if self.config.rotary_width:
            speeds = self._own(self._speeds, wide(query.dtype))
            query, key = turn(query, positions, speeds), turn(key, positions, speeds)
        return query, key, value

    def _attend(
        self,
        query: Array,
        key: Array,
        value: Array,
        positions: Array,
        mask: Array | None,
        block: int,
    ) -> Array:
        """[B, T, H, K] of queries that stand at positions int32[B, T], over keys [B, S, G, K]."""
        cfg = self.config
        first, last = None, positions if cfg.parts.is_decoder else None
        if any(kind.reach is not None for kind in cfg.layer_kinds):
            reach = self._own(_reach, positions.dtype)
            first = positions - reach
            last = positions if cfg.parts.is_decoder else positions + reach
        bias = None
        if cfg.distance_buckets:
            others = jax.lax.broadcasted_iota(
                positions.dtype, (*positions.shape, key.shape[-3]), positions.ndim
            )
            own = jnp.broadcast_to(positions[..., None], others.shape)
            bias = take_rows(self.distance, distance_buckets(own, others, cfg.distance_buckets))
        return dot_product_attention(
            query,
            key,
            value,
            mask=mask,
            first=first,
            last=last,
            bias=bias,
            width=cfg.score_width,
            cap=cfg.score_cap,
            block=block,
        )

    def _read(self, hidden: Array) -> Array:
        """What the maps read: the state, normed where the norm stands before."""
        if "before" not in self.config.parts.norms:
            return hidden
        normed = self.norm(hidden)
        if all(kind.is_normed for kind in self.config.layer_kinds):
            return normed
        return jnp.where(self._own(lambda kind: kind.is_normed, jnp.dtype(bool)), normed, hidden)

    def _close(self, hidden: Array, mixed: Array) -> Array:
        """Maps out of heads, and adds the residual."""
        out = self.output(mixed.reshape(*hidden.shape[:-1], -1))
        if "inside" in self.config.parts.norms:
            out = self.inner_norm(out)
        out = hidden + out
        return self.norm(out) if "after" in self.config.parts.norms else out

    def _speeds(self, kind: LayerKind) -> tuple[float, ...]:
        """Of a layer without rotary positions, all zero: nothing turns."""
        width = self.config.head_width
        return kind.rope.speeds(width) if kind.rope else (0.0,) * (self.config.rotary_width // 2)

    def _own(self, of: Callable[[LayerKind], Any], dtype: jnp.dtype) -> Array:
        """This layer's own of what kinds of layers have: a constant where all have the same."""
        values = [of(kind) for kind in self.config.layer_kinds]
        if len(set(values)) == 1:
            return jnp.asarray(values[0], dtype)
        return jnp.asarray(values, dtype)[self.get_variable("params", KIND)]


def _reach(kind: LayerKind) -> int:
    """Further than any row is long, where there is no limit."""
    return 2**30 if kind.reach is None else kind.reach


class FeedForward(nn.Module):
    """Two dense maps around an activation, with residual and norms."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, hidden: Array, beside: Array) -> Array:
        """Maps [B, T, D] to [B, T, D]; ``beside`` [B, T, D] is the residual."""
        cfg, parts = self.config, self.config.parts
        biased = parts.mlp_bias
        x = Norm(cfg, name="norm")(hidden) if "before" in parts.norms else hidden
        inner = Dense(cfg.width, cfg.feed_forward, biased, name="intermediate")(x)
        inner = activate(inner, cfg.activation)
        if parts.is_gated:
            inner = inner * Dense(cfg.width, cfg.feed_forward, biased, name="gated")(x)
        out = Dense(cfg.feed_forward, cfg.width, biased, name="output")(inner)
        if "inside" in parts.norms:
            out = Norm(cfg, name="inner_norm")(out)
        out = beside + out
        return Norm(cfg, name="norm")(out) if "after" in parts.norms else out


class Layer(nn.Module):
    """One transformer layer: attention, then feed-forward, or both of the same state."""

    config: BackboneConfig

    def setup(self) -> None:
        """Names the two halves."""
        self.attention = Attention(self.config)
        self.feed_forward = FeedForward(self.config)

    def __call__(self, hidden: Array, mask: Array) -> Array:
        """Maps hidden [B, T, D] under mask bool[B, T] to [B, T, D]."""
        return self._finish(hidden, self.attention(hidden, mask))

    def extend(self, hidden: Array, start: Array, cache: Cache) -> tuple[Array, Cache]:
        """The same of new tokens, over a cache (`Attention.extend`)."""
        attended, cache = self.attention.extend(hidden, start, cache)
        return self._finish(hidden, attended), cache

    def _finish(self, hidden: Array, attended: Array) -> Array:
        read = hidden if self.config.parts.is_parallel else attended
        return self.feed_forward(read, attended)


class Embeddings(nn.Module):
    """Sums word, position and token-type embeddings, where there are such, and normalises them."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, ids: Array, positions: Array, types: Array) -> Array:
        """Maps int32[B, T] (three times) to [B, T, D] in the compute dtype."""
        cfg, parts = self.config, self.config.parts
        width = cfg.embedding_width or cfg.width
        # Weights may be stored in bfloat16; rows widen before they are summed and normalised.
        summed = take_rows(self.param("word", _INIT, (cfg.vocab_size, width)), ids)
        if cfg.embedding_scale != 1.0:
            summed = summed * cfg.embedding_scale
        if parts.positions != "none":
            table = self.param("position", _INIT, (cfg.max_positions, width))
            summed = summed + take_rows(table, positions)
        if cfg.type_vocab:
            table = self.param("token_type", _INIT, (cfg.type_vocab, width))
            summed = summed + take_rows(table, types)
        if parts.embedding_norm:
            summed = Norm(cfg, name="norm")(summed)
        summed = summed.astype(cfg.compute_dtype)
        return summed if width == cfg.width else Dense(width, cfg.width, name="widen")(summed)


def position_ids(config: BackboneConfig, input_ids: Array) -> Array:
    """Position of each token, int32[B, T]; padding may take no place and have its own id."""
    if config.parts.positions == "table after padding":
        real = (input_ids != config.pad_id).astype(jnp.int32)
        return jnp.cumsum(real, axis=-1, dtype=jnp.int32) * real + (config.position_offset - 1)
    return count_up(input_ids.shape)


def count_up(shape: tuple[int, ...]) -> Array:
    """0, 1, 2, .. along the last axis, int32 of a shape."""
    return jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
