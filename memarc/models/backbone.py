"""A frozen or trained encoder as pure functions: embed, then scan over stacked layers.

Parameters are ``{"embeddings": {...}, "layers": {...}}``; every leaf under ``layers`` has a
leading axis L, and may be a structured kernel (`memarc.ops.linear`) whose leaves have it too.

Axes: B batch, T tokens, D width, L layers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memarc.models.config import BackboneConfig
from memarc.models.layers import Embeddings, Layer, apply
from memarc.typing import Array, Batch, Params, PyTree


def init(config: BackboneConfig, key: Array) -> Params:
    """Draws random parameters, float32, as BERT starts its pre-training (N(0, 0.02^2))."""
    ids = jnp.zeros((1, 2), jnp.int32)
    embed_key, layer_key = jax.random.split(key)
    return {
        "embeddings": Embeddings(config).init(embed_key, ids, ids)["params"],
        "layers": init_layers(config, layer_key),
    }


def init_layers(config: BackboneConfig, key: Array) -> Params:
    """Draws ``config.layers`` layers, stacked on a leading axis L."""
    hidden, mask = jnp.zeros((1, 2, config.width)), jnp.ones((1, 2), bool)
    keys = jax.random.split(key, config.layers)
    return jax.vmap(lambda k: Layer(config).init(k, hidden, mask)["params"])(keys)


def token_mask(batch: Batch) -> Array:
    """True where a token is real, bool[B, T]."""
    return batch["attention_mask"].astype(bool)


def embed(config: BackboneConfig, params: Params, batch: Batch) -> Array:
    """Embeds ``input_ids`` and ``token_type_ids`` int32[B, T] to [B, T, D]."""
    ids, types = batch["input_ids"], batch["token_type_ids"]
    return apply(Embeddings(config), params["embeddings"], ids, types)


def run_layers(config: BackboneConfig, layers: Params, hidden: Array, mask: Array) -> Array:
    """Runs stacked layers over hidden [B, T, D]; returns the last state [B, T, D]."""

    def step(state, layer):
        return apply(Layer(config), layer, state, mask), None

    return scan_layers(config, step, hidden, layers)[0]


def every_state(config: BackboneConfig, layers: Params, hidden: Array, mask: Array) -> Array:
    """Runs stacked layers; returns all states [L + 1, B, T, D], the input first."""
    _, states = read_states(config, layers, hidden, mask, lambda _, state: state, ())
    return jnp.concatenate([hidden[None], states])


def read_states(
    config: BackboneConfig,
    layers: Params,
    hidden: Array,
    mask: Array,
    read: Callable[[Params, Array], Array],
    readers: Params,
) -> tuple[Array, Array]:
    """Runs stacked layers, and reads something off every layer's output as it passes.

    Args:
      config: Sizes.
      layers: Stacked on L.
      hidden: [B, T, D].
      mask: bool[B, T].
      read: ``(reader, state [B, T, D]) -> anything``.
      readers: Parameters of ``read``, stacked on L.

    Returns:
      The last state [B, T, D], and what was read, stacked on L.
    """

    def step(state, stacked):
        layer, reader = stacked
        state = apply(Layer(config), layer, state, mask)
        return state, read(reader, state)

    return jax.lax.scan(step, hidden, (layers, readers))


def scan_layers(
    config: BackboneConfig, step: Callable[[Any, Any], tuple[Any, Any]], carry: PyTree, xs: PyTree
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` over layers that keeps for differentiation what ``config.remat`` says."""
    if config.remat == "layer":
        step = jax.checkpoint(step, prevent_cse=False)  # A scan's body cannot be merged anyway.
    return jax.lax.scan(step, carry, xs)


def encode(config: BackboneConfig, params: Params, batch: Batch) -> Array:
    """Embeds and runs all layers: the pre-trained function, [B, T, D]."""
    return run_layers(config, params["layers"], embed(config, params, batch), token_mask(batch))
