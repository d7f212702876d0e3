"""Dense maps, norms, attention and feed-forward blocks: the only layer mathematics.

Axes: B batch, T tokens, D width, H heads, K width of a head, F feed-forward width.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from memarc.models.config import BackboneConfig
from memarc.ops.linear import add_trailing, linear, multiply_trailing, take_rows
from memarc.ops.precision import wide
from memarc.typing import Array, Params

_INIT = nn.initializers.normal(0.02)

_ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": lambda x: nn.gelu(x, approximate=True),
    "relu": nn.relu,
}


def activate(x: Array, config: BackboneConfig) -> Array:
    """Applies the backbone's activation elementwise."""
    return _ACTIVATIONS[config.activation](x)


def apply(module: nn.Module, params: Params, *args: Array, method: str = "__call__") -> Any:
    """Calls a module, or one of its methods, on a plain tree of its parameters."""
    return module.apply({"params": params}, *args, method=method)


class Dense(nn.Module):
    """A linear map with bias; accepts a structured kernel (`memarc.ops.linear`)."""

    inputs: int  # Stated, not read off x: a structured kernel may take a wider input.
    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., I] to [..., O]."""
        kernel = self.param("kernel", _INIT, (self.inputs, self.features))
        return linear(x, kernel, self.param("bias", nn.initializers.zeros, (self.features,)))


class LayerNorm(nn.Module):
    """Normalises the last axis in float32; returns the dtype of its input."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., D] to [..., D]."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        values = x.astype(wide(x.dtype))
        centred = values - values.mean(-1, keepdims=True)
        normed = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return add_trailing(multiply_trailing(normed, scale), bias).astype(x.dtype)


def dot_product_attention(
    query: Array, key: Array, value: Array, mask: Array, block: int = 0
) -> Array:
    """Scaled dot-product attention; scores and softmax are float32, or float64 if the query is.

    (JAX's own function takes the softmax in float32 always, so it is no oracle in float64.)

    Args:
      query: [B, T, H, K].
      key: [B, T, H, K].
      value: [B, T, H, K].
      mask: bool[B, T], True at keys to read. A row without one reads all keys alike.
      block: Queries at a time, 0 for all; in blocks, scores are computed again going back.

    Returns:
      [B, T, H, K].
    """
    tokens = query.shape[1]
    if not 0 < block < tokens:
        return _attend(key, value, mask, query)
    padded = jnp.pad(query, ((0, 0), (0, -tokens % block), (0, 0), (0, 0)))
    blocks = jnp.moveaxis(padded.reshape(query.shape[0], -1, block, *query.shape[2:]), 1, 0)
    attend = jax.checkpoint(partial(_attend, key, value, mask), prevent_cse=False)
    out = jnp.moveaxis(jax.lax.map(attend, blocks), 0, 1)
    return out.reshape(padded.shape)[:, :tokens]


def _attend(key, value, mask, query):
    """Whole attention of some queries."""
    dtype = wide(query.dtype)
    scores = jnp.einsum("bthk,bshk->bhts", query, key, preferred_element_type=dtype)
    scores = scores * query.shape[-1] ** -0.5
    scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(dtype).min)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    return jnp.einsum("bhts,bshk->bthk", weights, value)


class Attention(nn.Module):
    """Multi-head self-attention with its residual and norm (post-LN)."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, hidden: Array, mask: Array) -> Array:
        """Maps hidden [B, T, D] under mask bool[B, T] (True: a real token) to [B, T, D]."""
        cfg = self.config
        heads = (*hidden.shape[:2], cfg.heads, cfg.head_width)
        query, key, value = (  # Each [B, T, H, K].
            Dense(cfg.width, cfg.width, name=name)(hidden).reshape(heads)
            for name in ("query", "key", "value")
        )
        mixed = dot_product_attention(query, key, value, mask, cfg.attention_block)
        out = Dense(cfg.width, cfg.width, name="output")(mixed.reshape(hidden.shape))
        return LayerNorm(cfg.norm_epsilon, name="norm")(hidden + out)


class FeedForward(nn.Module):
    """Two dense maps around an activation, with residual and norm (post-LN)."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, hidden: Array, beside: Array) -> Array:
        """Maps [B, T, D] to [B, T, D]; ``beside`` [B, T, D] is added before the norm."""
        cfg = self.config
        inner = Dense(cfg.width, cfg.feed_forward, name="intermediate")(hidden)
        out = Dense(cfg.feed_forward, cfg.width, name="output")(activate(inner, cfg))
        return LayerNorm(cfg.norm_epsilon, name="norm")(beside + out)


class Layer(nn.Module):
    """One transformer layer, whole or by halves (`attend`, then `feed`)."""

    config: BackboneConfig

    def setup(self):
        """Names the two halves."""
        self.attention = Attention(self.config)
        self.feed_forward = FeedForward(self.config)

    def attend(self, hidden: Array, mask: Array) -> Array:
        """The attention half: [B, T, D], bool[B, T] -> [B, T, D]."""
        return self.attention(hidden, mask)

    def feed(self, hidden: Array, beside: Array) -> Array:
        """The feed-forward half: [B, T, D] -> [B, T, D]; ``beside`` is added before the norm."""
        return self.feed_forward(hidden, beside)

    def __call__(self, hidden: Array, mask: Array) -> Array:
        """Both halves."""
        hidden = self.attend(hidden, mask)
        return self.feed(hidden, beside=hidden)


class Embeddings(nn.Module):
    """Sums word, position and token-type embeddings and normalises them."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, input_ids: Array, token_type_ids: Array) -> Array:
        """Maps ids int32[B, T] (twice) to [B, T, D] in the compute dtype."""
        cfg = self.config
        word = self.param("word", _INIT, (cfg.vocab_size, cfg.width))
        position = self.param("position", _INIT, (cfg.max_positions, cfg.width))
        token_type = self.param("token_type", _INIT, (cfg.type_vocab, cfg.width))
        # Weights may be stored in bfloat16; rows widen before they are summed and normalised.
        summed = take_rows(word, input_ids) + take_rows(position, position_ids(cfg, input_ids))
        summed = summed + take_rows(token_type, token_type_ids)
        return LayerNorm(cfg.norm_epsilon, name="norm")(summed).astype(cfg.compute_dtype)


def position_ids(config: BackboneConfig, input_ids: Array) -> Array:
    """Position of each token, int32[B, T]; in RoBERTa padding takes no place and has its own id."""
    if config.kind == "roberta":
        real = (input_ids != config.pad_id).astype(jnp.int32)
        return jnp.cumsum(real, axis=1, dtype=jnp.int32) * real + config.pad_id
    length = input_ids.shape[1]
    return jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], input_ids.shape)
