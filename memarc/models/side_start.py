"""The start of a side network, read from public weights only: cut out by magnitude, or random.

Published code ranks weights by Fisher information on the training data, an unaccounted release
when those are private; magnitude needs no data (checklist 30).

Axes: D backbone width, S side width, H heads, G key heads, K head width, k = K / side head
width, R components of a head that rotary positions turn, F, L, M.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.experimental import multihost_utils

from memarc.models import backbone
from memarc.models.config import BackboneConfig
from memarc.models.layers import Norm
from memarc.ops.quantised import widened
from memarc.typing import Array, Params

_OPENING = ("intermediate", "gated")  # Maps of a feed-forward block that read the state.
_MAPS = ("query", "key", "value", "output", *_OPENING)


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
        "norm": Norm(narrow).init(layer_key, jnp.zeros((1, narrow.width)))["params"],
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

    return widened(jax.tree.map(one, layers))


def _feature_importance(layer: Params) -> Array:
    """L1 weight of each of the D features, summed over a layer's matrices, float32[D]."""
    weights = (
        jnp.abs(dense["kernel"]).sum(0 if name == "output" else 1)
        for block in ("attention", "feed_forward")
        for name, dense in layer[block].items()
        if name in _MAPS
    )
    return reduce(jnp.add, weights)


def _cut_layer(
    layer: Params, features: Array, config: BackboneConfig, narrow: BackboneConfig
) -> Params:
    """Cuts one side layer out of one backbone layer, keeping its largest rows and columns."""
    attention, feed = layer["attention"], layer["feed_forward"]
    sizes = {name: jnp.abs(x["kernel"]) for name, x in attention.items() if name in _MAPS}
    asked, told = sizes["query"].sum(0), sizes["output"].sum(1)
    scores, score_readers = _head_indices(
        _by_key_head(asked, config) + sizes["key"].sum(0), config, narrow, config.rotary_width
    )
    mixed, mixed_readers = _head_indices(
        _by_key_head(told, config) + sizes["value"].sum(0), config, narrow, 0
    )
    opening = sum(jnp.abs(x["kernel"]).sum(0) for name, x in feed.items() if name in _OPENING)
    inner = _largest(opening + jnp.abs(feed["output"]["kernel"]).sum(1), narrow.feed_forward)
    return {
        "attention": {
            "query": _cut(attention["query"], features, score_readers),
            "key": _cut(attention["key"], features, scores),
            "value": _cut(attention["value"], features, mixed),
            "output": _cut(attention["output"], mixed_readers, features),
            **_cut_norms(attention, features),
            **_cut_query_norms(attention, score_readers, scores, config),
            **({"distance": attention["distance"]} if config.distance_buckets else {}),
        },
        "feed_forward": {
            **{name: _cut(x, features, inner) for name, x in feed.items() if name in _OPENING},
            "output": _cut(feed["output"], inner, features),
            **_cut_norms(feed, features),
        },
    }


def _cut_norms(block: Params, features: Array) -> Params:
    """The norms of a block's states, of the kept features."""
    return {
        name: {key: x[features] for key, x in block[name].items()}
        for name in ("norm", "inner_norm")
        if name in block
    }


def _cut_query_norms(
    attention: Params, queries: Array, keys: Array, config: BackboneConfig
) -> Params:
    """The norms of queries and keys, of the columns that are kept, int32[H K / k] and [G K / k].

    Heads that share a norm keep different columns of it: theirs is the mean.
    """
    if not config.parts.query_norm:
        return {}

    def cut(norm: Params, columns: Array, heads: int) -> Params:
        if config.parts.query_norm == "whole":
            return {key: x[columns] for key, x in norm.items()}
        within = (columns % config.head_width).reshape(heads, -1)
        return {key: x[within].mean(0) for key, x in norm.items()}

    return {
        "query_norm": cut(attention["query_norm"], queries, config.heads),
        "key_norm": cut(attention["key_norm"], keys, config.key_heads),
    }


def _by_key_head(importance: Array, config: BackboneConfig) -> Array:
    """Sums over the query heads that share a key head: [H K] -> [G K]."""
    shape = (config.key_heads, -1, config.head_width)
    return importance.reshape(shape).sum(1).reshape(-1)


def _head_indices(
    importance: Array, config: BackboneConfig, narrow: BackboneConfig, turning: int
) -> tuple[Array, Array]:
    """The largest columns within every key head: of all key heads, and of the heads that read them.

    Args:
      importance: [G K].
      config: The backbone's sizes.
      narrow: The side layer's.
      turning: R; components i and R / 2 + i of a head stay together, which rotary positions turn.

    Returns:
      int32[G K / k] and int32[H K / k].
    """
    by_head = importance.reshape(config.key_heads, config.head_width)
    pairs = by_head[:, :turning].reshape(config.key_heads, 2, turning // 2).sum(1)
    reduction = config.head_width // narrow.head_width
    first = _largest(pairs, turning // 2 // reduction)
    rest = _largest(by_head[:, turning:], (config.head_width - turning) // reduction)
    largest = jnp.concatenate([first, first + turning // 2, rest + turning], axis=1)  # [G, K / k]
    readers = jnp.repeat(largest, config.heads // config.key_heads, axis=0)  # [H, K / k]

    def columns(places: Array) -> Array:
        offsets = jnp.arange(len(places), dtype=places.dtype) * config.head_width
        return (places + offsets[:, None]).reshape(-1)

    return columns(largest), columns(readers)


def _cut(dense: Params, rows: Array, columns: Array) -> Params:
    """Rows and columns of a dense map."""
    cut = {"kernel": dense["kernel"][rows][:, columns]}
    return {**cut, "bias": dense["bias"][columns]} if "bias" in dense else cut
