"""Gemma 2 (arXiv:2408.00118): norms on both sides of blocks, capped scores and logits, windows."""

import dataclasses
from typing import Any

from memarc.models.config import LayerKind
from memarc.models.families import gemma, rotary
from memarc.models.family import Content, Family

PARTS = dataclasses.replace(gemma.PARTS, norms=("before", "inside"))
SIZES = {**rotary.SIZES, "activation": "hidden_activation"}
DEFAULTS = {
    **{key: value for key, value in gemma.DEFAULTS.items() if key != "hidden_act"},
    "num_key_value_heads": 4,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
}


def common(content: Content, parts: Any) -> dict[str, Any]:
    """What Gemma 2 and 3 read beyond Gemma: caps, and what scores are divided by."""
    return {
        **gemma.common(content, parts),
        "score_width": float(content["query_pre_attn_scalar"]),
        "score_cap": float(content["attn_logit_softcapping"] or 0.0),
        "logit_cap": float(content["final_logit_softcapping"] or 0.0),
    }


def _fields(content: Content) -> dict[str, Any]:
    turns = rotary.rope(rotary.stated(content))
    local = LayerKind(reach=rotary.reach(content["sliding_window"]), rope=turns)
    types = content["layer_types"] or [
        rotary.FULL if i % 2 else rotary.SLIDING for i in range(content["num_hidden_layers"])
    ]
    kinds = {rotary.SLIDING: local, rotary.FULL: LayerKind(rope=turns)}
    return {**common(content, PARTS), **rotary.by_type(types, kinds)}


FAMILY: Family = dataclasses.replace(
    gemma.FAMILY,
    name="gemma2",
    model_class="Gemma2ForCausalLM",
    parts=PARTS,
    sizes=SIZES,
    defaults={**DEFAULTS, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    required={"use_bidirectional_attention": None},
    harmless=("hidden_act", "cache_implementation", "sliding_window_size"),
    fields=_fields,
    published=("google/gemma-2-2b", "google/gemma-2-9b-it"),
    example={
        **rotary.EXAMPLE,
        "head_dim": 6,
        "query_pre_attn_scalar": 7,
        "sliding_window": 3,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
    },
)
