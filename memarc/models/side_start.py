"""The start of a side network, read from public weights only: cut out by magnitude, or random.

Published code ranks weights by Fisher information on the training data, an unaccounted release
when those are private; magnitude needs no data (checklist 30).

Axes: D backbone width, S side width, H heads, K head width, k = K / side head width, F, L, M.
"""

import jax
import jax.numpy as jnp

from memarc.models import backbone
from memarc.models.config import BackboneConfig
from memarc.typing import Array, Params


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
        stack = jax.tree.map(lambda x: x[jnp.asarray(kept)].astype(jnp.float32), params["layers"])
        features = _largest(_feature_importance(params["layers"]), narrow.width)
        layers = jax.vmap(lambda layer: _cut_layer(layer, features, config, narrow))(stack)
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
        "norm": {"scale": jnp.ones((narrow.width,)), "bias": jnp.zeros((narrow.width,))},
        "up": {
            "kernel": up_scale * jax.random.normal(up_key, (narrow.width, config.width)),
            "bias": jnp.zeros((config.width,)),
        },
    }


def _largest(importance, count):
    """Indices of the largest entries of the last axis, in increasing order."""
    return jnp.sort(jax.lax.top_k(importance, count)[1])


def _feature_importance(layers):
    """L1 weight of each of the D features, summed over all layers and matrices, float32[D]."""
    total = 0.0
    for block, name, axis in (
        ("attention", "query", 1),
        ("attention", "key", 1),
        ("attention", "value", 1),
        ("attention", "output", 2),
        ("feed_forward", "intermediate", 1),
        ("feed_forward", "output", 2),
    ):
        weights = jnp.abs(layers[block][name]["kernel"].astype(jnp.float32))  # [L, I, O]
        total = total + weights.sum([a for a in (0, 1, 2) if a != axis])
    return total


def _cut_layer(layer, features, config, narrow):
    """Cuts one side layer out of one backbone layer, keeping its largest rows and columns."""
    attention, feed = layer["attention"], layer["feed_forward"]
    kernels = {name: jnp.abs(attention[name]["kernel"]) for name in attention if name != "norm"}
    scores = _head_indices(kernels["query"].sum(0) + kernels["key"].sum(0), config, narrow)
    mixed = _head_indices(kernels["value"].sum(0) + kernels["output"].sum(1), config, narrow)
    opening, closing = (jnp.abs(feed[name]["kernel"]) for name in ("intermediate", "output"))
    inner = _largest(opening.sum(0) + closing.sum(1), narrow.feed_forward)
    return {
        "attention": {
            "query": _cut(attention["query"], features, scores),
            "key": _cut(attention["key"], features, scores),
            "value": _cut(attention["value"], features, mixed),
            "output": _cut(attention["output"], mixed, features),
            "norm": {name: x[features] for name, x in attention["norm"].items()},
        },
        "feed_forward": {
            "intermediate": _cut(feed["intermediate"], features, inner),
            "output": _cut(feed["output"], inner, features),
            "norm": {name: x[features] for name, x in feed["norm"].items()},
        },
    }


def _head_indices(importance, config, narrow):
    """The largest columns within every head, as indices into D, int32[S]."""
    by_head = importance.reshape(config.heads, config.head_width)
    largest = _largest(by_head, narrow.head_width)  # [H, K / k]
    offsets = jnp.arange(config.heads, dtype=largest.dtype) * config.head_width
    return (largest + offsets[:, None]).reshape(-1)


def _cut(dense, rows, columns):
    """Rows and columns of a dense map."""
    return {"kernel": dense["kernel"][rows][:, columns], "bias": dense["bias"][columns]}
