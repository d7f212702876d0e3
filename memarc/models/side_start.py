"""The start of a side network, read from public weights only: cut out by magnitude, or random.

Published code ranks weights by Fisher information on the training data, an unaccounted release
when those are private; magnitude needs no data (checklist 30).

Axes: D backbone width, S side width, H heads, G key heads, K head width, k = K / side head
width, F, L, M.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.experimental import multihost_utils

from memarc.models import backbone
from memarc.models.config import BackboneConfig
from memarc.models.layers import norm
from memarc.typing import Array, Params

_OPENING = ("intermediate", "gated")  # Maps of a feed-forward block that read the state.


def draw(
    key: Array,
    config: BackboneConfig,
    narrow: BackboneConfig,
    params: Params,
    kept: tuple[int, ...],
    start: str,
    merge: str,
) -> Params:
    """Builds the ladder's parameters, float32, all stacked over the M kept layers.

    Args:
      key: Key for the parts that are drawn.
      config: The backbone's sizes.
      narrow: The side layers' sizes.
      params: The backbone's public weights.
      kept: Backbone layers with a side layer.
      start: "pruned" or "random".
      merge: "add" starts the up-projection at zero, "replace" draws it.

    Returns:
      ``first`` (D_0), ``down`` (D_i), ``layers``, ``gate`` (alpha), ``norm``, ``up`` (U).
    """
    layer_key, down_key, up_key = jax.random.split(key, 3)
    if start == "pruned":
        layers, features = _cut_layers(params["layers"], kept, config, narrow)
        select = jax.nn.one_hot(features, config.width, axis=0)  # [D, S]: picks the features.
        kernels = jnp.broadcast_to(select[None], (len(kept) + 1, *select.shape))
    else:
        layers = backbone.init_layers(narrow, layer_key)
        shape = (len(kept) + 1, config.width, narrow.width)
        kernels = jax.random.normal(down_key, shape) * config.width**-0.5
    biases = jnp.zeros((len(kept) + 1, narrow.width))
    up_scale = 0.0 if merge == "add" else narrow.width**-0.5
    return {
        "first": {"kernel": kernels[0], "bias": biases[0]},
        "down": {"kernel": kernels[1:], "bias": biases[1:]},
        "layers": layers,
        "gate": jnp.zeros((len(kept),)),  # mu = 1/2.
        "norm": norm(narrow).init(layer_key, jnp.zeros((1, narrow.width)))["params"],
        "up": {
            "kernel": up_scale * jax.random.normal(up_key, (narrow.width, config.width)),
            "bias": jnp.zeros((config.width,)),
        },
    }


def _largest(importance: Array, count: int) -> Array:
    """Indices of the largest entries of the last axis, in increasing order."""
    return jnp.sort(jax.lax.top_k(importance, count)[1])


def _cut_layers(
    layers: Params, kept: tuple[int, ...], config: BackboneConfig, narrow: BackboneConfig
) -> tuple[Params, Array]:
    """The side layers, stacked, and the features that they keep, int32[S].

    One backbone layer after another is whole on one device, so every mesh gives the same start, and
    a backbone that is cut over many devices is never whole on one.
    """
    importance = reduce(
        jnp.add, (_feature_importance(_layer(layers, i)) for i in range(config.layers))
    )
    features = _largest(importance, narrow.width)
    cut = [_cut_layer(_layer(layers, i), features, config, narrow) for i in kept]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *cut), features


def _layer(layers: Params, number: int) -> Params:
    """One of stacked layers, float32, gathered from all devices that hold parts of it."""

    def one(stacked: Array) -> Array:
        x = stacked[number]
        is_traced = isinstance(x, Tracer)
        if isinstance(x, jax.Array) and not is_traced and len(x.sharding.device_set) > 1:
            x = multihost_utils.process_allgather(x, tiled=True)
        return jnp.asarray(x).astype(jnp.float32)

    return jax.tree.map(one, layers)


def _feature_importance(layer: Params) -> Array:
    """L1 weight of each of the D features, summed over a layer's matrices, float32[D]."""
    weights = (
        jnp.abs(dense["kernel"]).sum(0 if name == "output" else 1)
        for block in ("attention", "feed_forward")
        for name, dense in layer[block].items()
        if name != "norm"
    )
    return reduce(jnp.add, weights)


def _cut_layer(
    layer: Params, features: Array, config: BackboneConfig, narrow: BackboneConfig
) -> Params:
    """Cuts one side layer out of one backbone layer, keeping its largest rows and columns."""
    attention, feed = layer["attention"], layer["feed_forward"]
    sizes = {name: jnp.abs(x["kernel"]) for name, x in attention.items() if name != "norm"}
    asked, told = sizes["query"].sum(0), sizes["output"].sum(1)
    scores, score_readers = _head_indices(
        _by_key_head(asked, config) + sizes["key"].sum(0), config, narrow, config.parts.is_rotary
    )
    mixed, mixed_readers = _head_indices(
        _by_key_head(told, config) + sizes["value"].sum(0), config, narrow, False
    )
    opening = sum(jnp.abs(x["kernel"]).sum(0) for name, x in feed.items() if name in _OPENING)
    inner = _largest(opening + jnp.abs(feed["output"]["kernel"]).sum(1), narrow.feed_forward)
    return {
        "attention": {
            "query": _cut(attention["query"], features, score_readers),
            "key": _cut(attention["key"], features, scores),
            "value": _cut(attention["value"], features, mixed),
            "output": _cut(attention["output"], mixed_readers, features),
            "norm": {name: x[features] for name, x in attention["norm"].items()},
        },
        "feed_forward": {
            **{name: _cut(x, features, inner) for name, x in feed.items() if name in _OPENING},
            "output": _cut(feed["output"], inner, features),
            "norm": {name: x[features] for name, x in feed["norm"].items()},
        },
    }


def _by_key_head(importance: Array, config: BackboneConfig) -> Array:
    """Sums over the query heads that share a key head: [H K] -> [G K]."""
    shape = (config.key_heads, -1, config.head_width)
    return importance.reshape(shape).sum(1).reshape(-1)


def _head_indices(
    importance: Array, config: BackboneConfig, narrow: BackboneConfig, in_pairs: bool
) -> tuple[Array, Array]:
    """The largest columns within every key head: of all key heads, and of the heads that read them.

    Args:
      importance: [G K].
      config: The backbone's sizes.
      narrow: The side layer's.
      in_pairs: Whether components i and K / 2 + i stay together, which rotary positions turn.

    Returns:
      int32[G K / k] and int32[H K / k].
    """
    parts = 2 if in_pairs else 1
    by_part = importance.reshape(config.key_heads, parts, config.head_width // parts)
    largest = _largest(by_part.sum(1), narrow.head_width // parts)  # [G, K / k / parts]
    starts = range(0, config.head_width, config.head_width // parts)
    largest = jnp.concatenate([largest + start for start in starts], axis=1)  # [G, K / k]
    readers = jnp.repeat(largest, config.heads // config.key_heads, axis=0)  # [H, K / k]

    def columns(places: Array) -> Array:
        offsets = jnp.arange(len(places), dtype=places.dtype) * config.head_width
        return (places + offsets[:, None]).reshape(-1)

    return columns(largest), columns(readers)


def _cut(dense: Params, rows: Array, columns: Array) -> Params:
    """Rows and columns of a dense map."""
    cut = {"kernel": dense["kernel"][rows][:, columns]}
    return {**cut, "bias": dense["bias"][columns]} if "bias" in dense else cut
