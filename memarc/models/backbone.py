"""A frozen or trained backbone as pure functions: embed, then scan over stacked layers.

Parameters are ``{"embeddings": {...}, "layers": {...}}``, and ``"final"`` where there is such: the
last norm; of a decoder whose output table is not the word table, that table; of an encoder whose
masked-language head was asked for, its transform and the bias of words. Every leaf under ``layers``
has a leading axis L, and may be a structured kernel (`memarc.ops.linear`) whose leaves have it too.

Axes: B batch, T tokens, S slots of a cache, D width, V vocabulary, L layers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memarc.batches import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from memarc.models.config import BackboneConfig
from memarc.models.layers import (
    KIND,
    Cache,
    Dense,
    Embeddings,
    Layer,
    Norm,
    activate,
    apply,
    count_up,
    position_ids,
)
from memarc.ops.linear import LINEAR
from memarc.ops.token_loss import token_logits
from memarc.typing import Array, Batch, Params, PyTree

WORD_BIAS = ("final", "word_bias")
"""Path of the bias [V] of words in a masked-language head."""


def init(config: BackboneConfig, key: Array) -> Params:
    """Draws random parameters, float32, as BERT starts its pre-training (N(0, 0.02^2))."""
    ids = jnp.zeros((1, 2), jnp.int32)
    embed_key, layer_key, table_key = jax.random.split(key, 3)
    params = {
        "embeddings": Embeddings(config).init(embed_key, ids, ids, ids)["params"],
        "layers": init_layers(config, layer_key),
    }
    if config.parts.final_norm:
        states = jnp.zeros((1, config.width))
        params["final"] = {"norm": Norm(config).init(table_key, states)["params"]}
    if config.has_table:
        shape = (config.vocab_size, config.width)
        params["final"]["table"] = 0.02 * jax.random.normal(table_key, shape)
    if config.transform:
        drawn = _init_transform(config, jax.random.fold_in(table_key, 1))
        params["final"] = {**params.get("final", {}), **drawn}
    return params


def _init_transform(config: BackboneConfig, key: Array) -> Params:
    """Draws a masked-language head, but for the table of words."""
    assert config.transform is not None
    states = jnp.zeros((1, config.width))
    dense = Dense(config.width, config.width, config.transform.bias)
    parts = {"dense": dense, "norm": Norm(config)}
    drawn = {name: part.init(key, states)["params"] for name, part in parts.items()}
    return {"transform": drawn, WORD_BIAS[-1]: jnp.zeros((config.vocab_size,))}


def init_layers(config: BackboneConfig, key: Array) -> Params:
    """Draws ``config.layers`` layers, stacked on a leading axis L."""
    hidden, mask = jnp.zeros((1, 2, config.width)), jnp.ones((1, 2), bool)
    keys = jax.random.split(key, config.layers)
    of_one_kind = dataclasses.replace(
        config, layer_kinds=config.layer_kinds[:1], kind_of_layer=()
    )  # Kinds have parameters alike.
    return jax.vmap(lambda k: Layer(of_one_kind).init(k, hidden, mask)["params"])(keys)


def layers_of(config: BackboneConfig, params: Params) -> Params:
    """The stacked layers of a backbone or ladder, as all functions of stacked layers want them.

    Where layers are of several kinds, each one's kind stands beside its parameters.
    """
    if len(config.layer_kinds) == 1:
        return params["layers"]
    kinds = jnp.asarray(config.kind_of_layer or (0,) * config.layers, jnp.int32)
    layers = params["layers"]
    return {**layers, "attention": {**layers["attention"], KIND: kinds}}


def norm_last(config: BackboneConfig, params: Params, states: Array) -> Array:
    """The norm that follows the last layer, of states [.., D]."""
    return apply(Norm(config), params["final"]["norm"], states)


def transform(config: BackboneConfig, params: Params, states: Array) -> Array:
    """What a masked-language head compares with words, [.., D], of states [.., D]."""
    assert config.transform is not None
    own = params["final"]["transform"]
    dense = Dense(config.width, config.width, config.transform.bias)
    inner = activate(apply(dense, own["dense"], states), config.transform.activation)
    return apply(Norm(config), own["norm"], inner)


def token_mask(batch: Batch) -> Array:
    """True where a token is real, bool[B, T]."""
    return batch[ATTENTION_MASK].astype(bool)


def embed(config: BackboneConfig, params: Params, batch: Batch) -> Array:
    """Embeds ``input_ids`` and, where they have a table, ``token_type_ids``, int32[B, T].

    Returns:
      [B, T, D].

    Raises:
      ValueError: If there are more tokens than positions, which a table would not tell.
    """
    ids = batch[INPUT_IDS]
    _check_length(config, ids.shape[-1])
    types = batch[TOKEN_TYPE_IDS] if config.type_vocab else ids
    module = Embeddings(config)
    return apply(module, params["embeddings"], ids, position_ids(config, ids), types)


def embed_more(config: BackboneConfig, params: Params, tokens: Array, start: Array) -> Array:
    """Embeds tokens int32[B, T] that stand in slots from ``start`` int32[B] on: [B, T, D]."""
    positions = start[:, None] + count_up(tokens.shape)
    return apply(Embeddings(config), params["embeddings"], tokens, positions, tokens)


def run_layers(config: BackboneConfig, layers: Params, hidden: Array, mask: Array) -> Array:
    """Runs stacked layers over hidden [B, T, D]; returns the last state [B, T, D]."""

    def step(state: Array, layer: Params) -> tuple[Array, None]:
        return apply(Layer(config), layer, state, mask), None

    return scan_layers(config, step, hidden, layers)[0]


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

    def step(state: Array, stacked: tuple[Params, Params]) -> tuple[Array, Any]:
        layer, reader = stacked
        state = apply(Layer(config), layer, state, mask)
        return state, read(reader, state)

    return jax.lax.scan(step, hidden, (layers, readers))


def scan_layers(
    config: BackboneConfig, step: Callable[[Any, Any], tuple[Any, Any]], carry: PyTree, xs: PyTree
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` over layers that keeps for differentiation what ``config.remat`` says.

    Left to itself, differentiation would keep every activation, norm and softmax as well: three
    times the bytes, which an accelerator writes and reads in more time than it computes them again.
    """
    policies = jax.checkpoint_policies
    kept = {"none": policies.save_only_these_names(LINEAR), "layer": policies.nothing_saveable}
    # A scan's body cannot be merged with what computes it again.
    step = jax.checkpoint(step, prevent_cse=False, policy=kept[config.remat])
    return jax.lax.scan(step, carry, xs)


def empty_cache(config: BackboneConfig, layers: int, rows: int, slots: int) -> Cache:
    """Caches of stacked layers, zeros [L, B, S, G, K] in the compute dtype.

    Raises:
      ValueError: If there are more slots than positions.
    """
    _check_length(config, slots)
    shape = (layers, rows, slots, config.key_heads, config.head_width)
    return {name: jnp.zeros(shape, config.compute_dtype) for name in ("key", "value")}


def extend_layers(
    config: BackboneConfig,
    layers: Params,
    hidden: Array,
    start: Array,
    cache: Cache,
    read: Callable[[Params, Array], Any],
    readers: Params,
) -> tuple[Array, Any, Cache]:
    """Runs stacked layers over new tokens, as `read_states` does over whole rows.

    Args:
      config: Sizes.
      layers: Stacked on L.
      hidden: [B, T, D], the new tokens.
      start: int32[B], the slot of each row's first one.
      cache: The caches of all layers, stacked on L.
      read: ``(reader, state [B, T, D]) -> anything``.
      readers: Parameters of ``read``, stacked on L.

    Returns:
      The last state [B, T, D], what was read, stacked on L, and the cache with the new tokens.
    """

    def step(
        state: Array, stacked: tuple[Params, Cache, Params]
    ) -> tuple[Array, tuple[Any, Cache]]:
        layer, kept, reader = stacked
        state, kept = apply(Layer(config), layer, state, start, kept, method="extend")
        return state, (read(reader, state), kept)

    last, (found, cache) = jax.lax.scan(step, hidden, (layers, cache, readers))
    return last, found, cache


def extend_plainly(
    config: BackboneConfig, layers: Params, hidden: Array, start: Array, cache: Cache
) -> tuple[Array, Cache]:
    """Does as `extend_layers`, reading nothing: the last state [B, T, D], and the cache."""
    last, _, cache = extend_layers(config, layers, hidden, start, cache, lambda *_: (), ())
    return last, cache


def _check_length(config: BackboneConfig, tokens: int) -> None:
    if tokens > config.longest_sequence:
        raise ValueError(
            f"{tokens} tokens are more than the backbone's {config.longest_sequence} positions."
        )


def encode(config: BackboneConfig, params: Params, batch: Batch) -> Array:
    """Embeds and runs all layers: the pre-trained function, [B, T, D]."""
    layers = layers_of(config, params)
    return run_layers(config, layers, embed(config, params, batch), token_mask(batch))


def output_table(params: Params) -> Array:
    """The table [V, D] whose rows tokens' logits are read off: the word table if tied."""
    return params["final"].get("table", params["embeddings"]["word"])


def output_logits(config: BackboneConfig, params: Params, states: Array) -> Array:
    """Logits of next tokens, float32[.., V], of states [.., D] after the last norm."""
    return token_logits(output_table(params), states, config.logit_cap)
