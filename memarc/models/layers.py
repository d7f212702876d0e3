"""Dense maps, norms, attention and feed-forward blocks: the only layer mathematics.

Axes: B batch (or several batch axes), T tokens, S slots of a cache, D width, H heads, G key heads,
K width of a head, F feed-forward width.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memarc.models.attention import dot_product_attention, turn
from memarc.models.config import BackboneConfig
from memarc.ops.linear import add_trailing, linear, multiply_trailing, take_rows
from memarc.ops.precision import wide
from memarc.ops.sharded import whole
from memarc.typing import Array, Params

_INIT = nn.initializers.normal(0.02)

_ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": lambda x: nn.gelu(x, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}

Cache = dict[str, Array]
"""Keys and values of one layer, "key" and "value", each [B, S, G, K]."""


def activate(x: Array, config: BackboneConfig) -> Array:
    """Applies the backbone's activation elementwise."""
    return _ACTIVATIONS[config.activation](x)


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

    kind: str
    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., D] to [..., D]."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        values = x.astype(wide(x.dtype))
        if self.kind == "layer":
            values = values - values.mean(-1, keepdims=True)
        normed = values * jax.lax.rsqrt((values**2).mean(-1, keepdims=True) + self.epsilon)
        normed = multiply_trailing(normed, scale)
        if self.kind == "layer":
            bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
            normed = add_trailing(normed, bias)
        return normed.astype(x.dtype)


def norm(config: BackboneConfig, name: str | None = None) -> Norm:
    """The backbone's norm."""
    return Norm(config.parts.norm, config.norm_epsilon, name=name)


class Attention(nn.Module):
    """Multi-head self-attention with its residual, and a norm after or, in decoders, before it."""

    config: BackboneConfig

    def setup(self) -> None:
        """Names the maps."""
        cfg = self.config
        narrow = cfg.key_heads * cfg.head_width
        self.query = Dense(cfg.width, cfg.width, cfg.parts.has_biases)
        self.key = Dense(cfg.width, narrow, cfg.parts.has_biases)
        self.value = Dense(cfg.width, narrow, cfg.parts.has_biases)
        self.output = Dense(cfg.width, cfg.width, cfg.parts.has_biases)
        self.norm = norm(cfg)

    def __call__(self, hidden: Array, mask: Array) -> Array:
        """Maps hidden [B, T, D] under mask bool[B, T] (True: a real token) to [B, T, D]."""
        cfg = self.config
        positions = count_up(hidden.shape[:-1])
        query, key, value = self._project(hidden, positions)
        last = positions if cfg.parts.is_decoder else None
        mixed = dot_product_attention(
            query, key, value, mask=mask, last=last, block=cfg.attention_block
        )
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
        mixed = dot_product_attention(query, cache["key"], cache["value"], last=positions)
        return self._close(hidden, mixed), cache

    def _project(self, hidden: Array, positions: Array) -> tuple[Array, Array, Array]:
        """Queries [B, T, H, K], keys and values [B, T, G, K]."""
        cfg = self.config
        x = self.norm(hidden) if cfg.parts.is_decoder else hidden
        query, key, value = (
            dense(x).reshape(*x.shape[:-1], -1, cfg.head_width)
            for dense in (self.query, self.key, self.value)
        )
        if cfg.parts.is_rotary:
            query, key = (turn(y, positions, cfg.rope_theta) for y in (query, key))
        return query, key, value

    def _close(self, hidden: Array, mixed: Array) -> Array:
        out = hidden + self.output(mixed.reshape(hidden.shape))
        return out if self.config.parts.is_decoder else self.norm(out)


class FeedForward(nn.Module):
    """Two dense maps around an activation, with residual, and the norm after or before them."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, hidden: Array, beside: Array) -> Array:
        """Maps [B, T, D] to [B, T, D]; ``beside`` [B, T, D] is the residual."""
        cfg, biased = self.config, self.config.parts.has_biases
        x = norm(cfg, "norm")(hidden) if cfg.parts.is_decoder else hidden
        inner = activate(Dense(cfg.width, cfg.feed_forward, biased, name="intermediate")(x), cfg)
        if cfg.parts.is_gated:
            inner = inner * Dense(cfg.width, cfg.feed_forward, biased, name="gated")(x)
        out = beside + Dense(cfg.feed_forward, cfg.width, biased, name="output")(inner)
        return out if cfg.parts.is_decoder else norm(cfg, "norm")(out)


class Layer(nn.Module):
    """One transformer layer: attention, then feed-forward."""

    config: BackboneConfig

    def setup(self) -> None:
        """Names the two halves."""
        self.attention = Attention(self.config)
        self.feed_forward = FeedForward(self.config)

    def __call__(self, hidden: Array, mask: Array) -> Array:
        """Maps hidden [B, T, D] under mask bool[B, T] to [B, T, D]."""
        hidden = self.attention(hidden, mask)
        return self.feed_forward(hidden, hidden)

    def extend(self, hidden: Array, start: Array, cache: Cache) -> tuple[Array, Cache]:
        """The same of new tokens, over a cache (`Attention.extend`)."""
        hidden, cache = self.attention.extend(hidden, start, cache)
        return self.feed_forward(hidden, hidden), cache


class Embeddings(nn.Module):
    """Sums word, position and (of encoders) token-type embeddings; encoders normalise them."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, ids: Array, positions: Array, types: Array) -> Array:
        """Maps int32[B, T] (three times) to [B, T, D] in the compute dtype."""
        cfg = self.config
        # Weights may be stored in bfloat16; rows widen before they are summed and normalised.
        summed = take_rows(self.param("word", _INIT, (cfg.vocab_size, cfg.width)), ids)
        if not cfg.parts.is_rotary:
            table = self.param("position", _INIT, (cfg.max_positions, cfg.width))
            summed = summed + take_rows(table, positions)
        if not cfg.parts.is_decoder:
            table = self.param("token_type", _INIT, (cfg.type_vocab, cfg.width))
            summed = norm(cfg, "norm")(summed + take_rows(table, types))
        return summed.astype(cfg.compute_dtype)


def position_ids(config: BackboneConfig, input_ids: Array) -> Array:
    """Position of each token, int32[B, T]; in RoBERTa padding takes no place and has its own id."""
    if config.kind == "roberta":
        real = (input_ids != config.pad_id).astype(jnp.int32)
        return jnp.cumsum(real, axis=-1, dtype=jnp.int32) * real + (config.position_offset - 1)
    return count_up(input_ids.shape)


def count_up(shape: tuple[int, ...]) -> Array:
    """0, 1, 2, .. along the last axis, int32 of a shape."""
    return jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
