"""Gemma 3, its text part (arXiv:2503.19786): local layers have rotary positions of their own."""

import dataclasses
from typing import Any

from memarc.models.config import LayerKind
from memarc.models.families import gemma2, rotary
from memarc.models.family import Content, Family

_PARTS = dataclasses.replace(gemma2.PARTS, query_norm="head")


def _fields(content: Content) -> dict[str, Any]:
    stated = content["rope_parameters"] or {
        rotary.FULL: {"rope_theta": content["rope_theta"], **(content["rope_scaling"] or {})},
        rotary.SLIDING: {"rope_theta": content["rope_local_base_freq"]},
    }
    full = LayerKind(rope=rotary.rope(stated.get(rotary.FULL) or {}, theta=1000000.0))
    turns = rotary.rope(stated.get(rotary.SLIDING) or {})
    local = LayerKind(reach=rotary.reach(content["sliding_window"]), rope=turns)
    every = content["sliding_window_pattern"]
    types = content["layer_types"] or [
        rotary.SLIDING if (i + 1) % every else rotary.FULL
        for i in range(content["num_hidden_layers"])
    ]
    kinds = {rotary.SLIDING: local, rotary.FULL: full}
    return {**gemma2.common(content, _PARTS), **rotary.by_type(types, kinds)}


FAMILY: Family = dataclasses.replace(
    gemma2.FAMILY,
    name="gemma3_text",
    model_class="Gemma3ForCausalLM",
    parts=_PARTS,
    defaults={
        **gemma2.DEFAULTS,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "rope_local_base_freq": 10000.0,
        "sliding_window_pattern": 6,
    },
    required={"use_bidirectional_attention": False},
    harmless=("hidden_act", "cache_implementation", "_sliding_window_pattern"),
    fields=_fields,
    published=("google/gemma-3-270m", "google/gemma-3-1b-it"),
    example={
        **rotary.EXAMPLE,
        "head_dim": 6,
        "query_pre_attn_scalar": 7,
        "sliding_window": 3,
        "sliding_window_pattern": 2,
        "rope_theta": 500.0,
        "rope_local_base_freq": 20.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
)
