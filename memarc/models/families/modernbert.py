"""ModernBERT (Warner et al. 2024, arXiv:2412.13663): a rotary encoder of local and global layers.

Axes: D width, F feed-forward width.
"""

import dataclasses
from typing import Any

from memarc.models.config import BackboneConfig, LayerKind, Parts
from memarc.models.families import rotary
from memarc.models.family import Content, Family, MaskHead
from memarc.models.tensor_names import Entry, dense, norm, side_by_side

_PARTS = Parts(
    is_decoder=False,
    norm_bias=False,
    embedding_norm=True,
    positions="none",
    is_gated=True,
    query_bias=False,
    output_bias=False,
    mlp_bias=False,
)


def _fields(content: Content) -> dict[str, Any]:
    stated = content["rope_parameters"] or {
        rotary.FULL: {"rope_theta": content["global_rope_theta"]},
        rotary.SLIDING: {"rope_theta": content["local_rope_theta"]},
    }
    turns = rotary.rope(stated.get(rotary.SLIDING) or {})
    kinds = {
        rotary.FULL: LayerKind(rope=rotary.rope(stated.get(rotary.FULL) or {}, theta=160000.0)),
        rotary.SLIDING: LayerKind(reach=content["local_attention"] // 2, rope=turns),
    }
    every = content["global_attn_every_n_layers"]
    types = content["layer_types"] or [
        rotary.SLIDING if i % every else rotary.FULL for i in range(content["num_hidden_layers"])
    ]
    # The first layer reads embeddings that are normed already.
    first = {name: dataclasses.replace(kind, is_normed=False) for name, kind in kinds.items()}
    biased = content["attention_bias"]
    return {
        **rotary.by_type(
            [f"first {types[0]}", *types[1:]],
            kinds | {f"first {name}": kind for name, kind in first.items()},
        ),
        "parts": dataclasses.replace(
            _PARTS,
            norm_bias=content["norm_bias"],
            query_bias=biased,
            output_bias=biased,
            mlp_bias=content["mlp_bias"],
        ),
    }


def _names(config: BackboneConfig) -> list[Entry]:
    d, f, parts, name = config.width, config.feed_forward, config.parts, "layers.{layer}."
    attention, feed = ("layers", "attention"), ("layers", "feed_forward")
    fused = (
        (f"{name}attn.Wqkv", attention, ("query", "key", "value"), d, parts.query_bias),
        (f"{name}mlp.Wi", feed, ("intermediate", "gated"), f, parts.mlp_bias),
    )
    maps = [
        entry
        for its, path, keys, size, biased in fused
        for key, part in zip(keys, side_by_side((size,) * len(keys)), strict=True)
        for entry in dense((*path, key), its, d, size, biased, part=part)
    ]
    return [
        Entry(("embeddings", "word"), "embeddings.tok_embeddings.weight", (config.vocab_size, d)),
        *norm(("embeddings", "norm"), "embeddings.norm", d, parts.norm_bias),
        *maps,
        *norm((*attention, "norm"), f"{name}attn_norm", d, parts.norm_bias, first=1),
        *dense((*attention, "output"), f"{name}attn.Wo", d, d, parts.output_bias),
        *norm((*feed, "norm"), f"{name}mlp_norm", d, parts.norm_bias),
        *dense((*feed, "output"), f"{name}mlp.Wo", f, d, parts.mlp_bias),
        *norm(("final", "norm"), "final_norm", d, parts.norm_bias),
    ]


FAMILY = Family(
    name="modernbert",
    model_class="ModernBertModel",
    prefix="model.",
    parts=_PARTS,
    sizes={
        "vocab_size": "vocab_size",
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
        "max_positions": "max_position_embeddings",
        "activation": "hidden_activation",
        "norm_epsilon": "norm_eps",
        "pad_id": "pad_token_id",
    },
    defaults={
        "rope_parameters": None,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "layer_types": None,
        "global_attn_every_n_layers": 3,
        "local_attention": 128,
        "attention_bias": False,
        "mlp_bias": False,
        "norm_bias": False,
        "hidden_activation": "gelu",
        "norm_eps": 1e-5,
        "pad_token_id": 50283,
    },
    required={"position_embedding_type": "absolute"},  # In old files, and means nothing there.
    harmless=(
        "layer_norm_eps",
        "initializer_cutoff_factor",
        "embedding_dropout",
        "mlp_dropout",
        "decoder_bias",
        "classifier_pooling",
        "classifier_bias",
        "classifier_activation",
        "deterministic_flash_attn",
        "reference_compile",
        "repad_logits_with_grad",
        "sparse_prediction",
        "sparse_pred_ignore_index",
    ),
    fields=_fields,
    names=_names,
    ignored=("head.*", "decoder.*", "classifier.*"),
    table="decoder.weight",
    mask_head=MaskHead(
        dense="head.dense",
        norm="head.norm",
        bias="decoder.bias",
        activation="gelu",
        dense_bias=False,
        required={
            "classifier_bias": False,
            "classifier_activation": "gelu",
            "decoder_bias": True,
        },
    ),
    published=("answerdotai/ModernBERT-base", "answerdotai/ModernBERT-large"),
    example={
        "vocab_size": 61,
        "hidden_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "intermediate_size": 42,
        "max_position_embeddings": 13,
        "norm_eps": 1e-3,
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "local_attention": 5,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 300.0,
        "local_rope_theta": 20.0,
        "pad_token_id": 0,
    },
)
