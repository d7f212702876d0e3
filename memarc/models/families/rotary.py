"""What families of rotary decoders share: rotary positions, windows, names of tensors.

Axes: D width, F feed-forward width, H heads, G key heads, K width of a head.
"""

from collections.abc import Mapping
from typing import Any

from memarc.models.config import BackboneConfig, LayerKind, Parts
from memarc.models.family import Content
from memarc.models.rotary import Bands, Rope
from memarc.models.tensor_names import Entry, dense, norm

PARTS = Parts(
    is_decoder=True,
    norm="rms",
    norm_bias=False,
    positions="none",
    is_gated=True,
    query_bias=False,
    output_bias=False,
    mlp_bias=False,
)
SIZES = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "norm_epsilon": "rms_norm_eps",
    "activation": "hidden_act",
    "kv_heads": "num_key_value_heads",
}
ROPE_KEYS = {"rope_theta": None, "rope_scaling": None, "rope_parameters": None}
"""Where rotary positions stand, in old files and in new ones."""

DEFAULTS = {
    **ROPE_KEYS,
    "tie_word_embeddings": False,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
}
IGNORED = (
    "score.*",
    "classifier.*",
    "qa_outputs.*",
    "layers.{layer}.self_attn.rotary_emb.inv_freq",
)
EXAMPLE = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 42,
    "max_position_embeddings": 13,
    "rms_norm_eps": 1e-3,
}
FULL, SLIDING = "full_attention", "sliding_attention"

_OF_TYPES = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    },
}
_SHARE = "partial_rotary_factor"
_ALWAYS = {"rope_theta", "rope_type", "type", _SHARE}


def stated(content: Content) -> dict[str, Any]:
    """What a config.json says of rotary positions, with ``rope_theta`` if it stands beside."""
    found = content["rope_parameters"] or content["rope_scaling"] or {}
    return {"rope_theta": content["rope_theta"], **found}


def rope(stated: Mapping[str, Any], *, theta: float = 10000.0, share: float | None = None) -> Rope:
    """Reads rotary positions.

    Args:
      stated: Keys of ``rope_parameters``; None counts as absent.
      theta: Where none is stated.
      share: The same of ``partial_rotary_factor``; None for a family that turns whole heads.

    Returns:
      The speeds' rule.

    Raises:
      ValueError: For a scaling that is not supported, or an unknown or missing key.
    """
    given = {key: value for key, value in stated.items() if value is not None}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in _OF_TYPES:
        raise ValueError(
            f"rope_type {kind!r} is not supported; the supported ones are {tuple(_OF_TYPES)}."
        )
    wanted = _OF_TYPES[kind]
    unknown, missing = sorted(given.keys() - wanted - _ALWAYS), sorted(wanted - given.keys())
    if unknown or missing:
        raise ValueError(
            f"rope_parameters of rope_type {kind!r} have unknown keys {unknown} and lack {missing}."
        )
    if share is None and given.get(_SHARE, 1.0) != 1.0:
        raise ValueError(
            f"{_SHARE} is {given[_SHARE]}; this family turns whole heads: it must be 1."
        )
    bands = None
    if kind == "llama3":
        bands = Bands(
            given["original_max_position_embeddings"],
            float(given["low_freq_factor"]),
            float(given["high_freq_factor"]),
        )
    return Rope(
        theta=float(given.get("rope_theta", theta)),
        share=float(given.get(_SHARE, share or 1.0)),
        factor=float(given.get("factor", 1.0)),
        bands=bands,
    )


def reach(window: int | None) -> int | None:
    """How far back a token reads whose window counts itself.

    Raises:
      ValueError: If the window is no positive number.
    """
    if window is None:
        return None
    if window < 1:
        raise ValueError(f"sliding_window is {window}; it must be at least 1 or null.")
    return window - 1


def window(content: Content) -> int | None:
    """The window of layers of type `SLIDING`, where ``use_sliding_window`` switches it.

    Raises:
      ValueError: If there are such layers, but the switch is off.
    """
    if content["use_sliding_window"]:
        return content["sliding_window"]
    if SLIDING in (content["layer_types"] or ()):
        raise ValueError(f"layer_types has {SLIDING!r}, but use_sliding_window is false.")
    return None


def by_type(types: list[str], kinds: Mapping[str, LayerKind]) -> dict[str, Any]:
    """``layer_kinds`` and ``kind_of_layer`` of layers by the names of their types.

    Raises:
      ValueError: For a type that is not among the kinds.
    """
    unknown = sorted(set(types) - kinds.keys())
    if unknown:
        raise ValueError(f"layer_types has {unknown}; the supported ones are {list(kinds)}.")
    return of_layers([kinds[name] for name in types])


def of_layers(kinds: list[LayerKind]) -> dict[str, Any]:
    """``layer_kinds`` and ``kind_of_layer`` of the kinds of all layers in order."""
    different = tuple(dict.fromkeys(kinds))
    places = tuple(different.index(kind) for kind in kinds) if len(different) > 1 else ()
    return {"layer_kinds": different, "kind_of_layer": places}


def head_size(content: Content) -> int:
    """``head_size`` of a config: 0 where it is the width over heads."""
    given = content["head_dim"] or 0
    return 0 if given * content["num_attention_heads"] == content["hidden_size"] else given


def embeddings_and_last_norm(config: BackboneConfig) -> list[Entry]:
    """The word table and the last norm."""
    d = config.width
    return [
        Entry(("embeddings", "word"), "embed_tokens.weight", (config.vocab_size, d)),
        *norm(("final", "norm"), "norm", d, False),
    ]


def names(config: BackboneConfig) -> list[Entry]:
    """The tensors of LLaMA, with the biases and norms that the config states."""
    return [*embeddings_and_last_norm(config), *attention(config), *mlp(config), *norms(config)]


def attention(config: BackboneConfig) -> list[Entry]:
    """Its four maps, and the norms of queries and keys."""
    d, parts, name = config.width, config.parts, "layers.{layer}.self_attn."
    asked, told = config.heads * config.head_width, config.key_heads * config.head_width
    path, biased = ("layers", "attention"), parts.query_bias
    entries = [
        *dense((*path, "query"), f"{name}q_proj", d, asked, biased),
        *dense((*path, "key"), f"{name}k_proj", d, told, biased),
        *dense((*path, "value"), f"{name}v_proj", d, told, biased),
        *dense((*path, "output"), f"{name}o_proj", asked, d, parts.output_bias),
    ]
    if parts.query_norm:
        whole, one = parts.query_norm == "whole", config.head_width
        entries += norm((*path, "query_norm"), f"{name}q_norm", asked if whole else one, False)
        entries += norm((*path, "key_norm"), f"{name}k_norm", told if whole else one, False)
    return entries


def mlp(config: BackboneConfig) -> list[Entry]:
    """The maps of the feed-forward block."""
    d, f, biased = config.width, config.feed_forward, config.parts.mlp_bias
    path, name = ("layers", "feed_forward"), "layers.{layer}.mlp."
    return [
        *dense((*path, "gated"), f"{name}up_proj", d, f, biased),
        *dense((*path, "intermediate"), f"{name}gate_proj", d, f, biased),
        *dense((*path, "output"), f"{name}down_proj", f, d, biased),
    ]


def norms(config: BackboneConfig) -> list[Entry]:
    """The norms of states: before blocks, inside them, or both (and then the names differ)."""
    found, name = [], "layers.{layer}."
    before = {"attention": "input_layernorm", "feed_forward": "post_attention_layernorm"}
    inside = {"attention": "post_attention_layernorm", "feed_forward": "post_feedforward_layernorm"}
    if "inside" in config.parts.norms:
        before["feed_forward"] = "pre_feedforward_layernorm"
    for place, leaf, of_block in (("before", "norm", before), ("inside", "inner_norm", inside)):
        if place in config.parts.norms:
            for block, its in of_block.items():
                found += norm(("layers", block, leaf), name + its, config.width, False)
    return found
