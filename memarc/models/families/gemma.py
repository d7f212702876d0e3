"""Gemma (arXiv:2403.08295): LLaMA with scaled embeddings and norms that multiply by 1 + scale."""

import dataclasses
from typing import Any

from memarc.models.config import LayerKind
from memarc.models.families import rotary
from memarc.models.family import Content, Family

PARTS = dataclasses.replace(rotary.PARTS, adds_one=True)
DEFAULTS = {
    **rotary.DEFAULTS,
    "tie_word_embeddings": True,
    "head_dim": 256,
    "attention_bias": False,
}


def common(content: Content, parts: Any) -> dict[str, Any]:
    """What all three Gemmas read: scaled embeddings, heads, biases."""
    biased = content["attention_bias"]
    return {
        "head_size": rotary.head_size(content),
        "embedding_scale": content["hidden_size"] ** 0.5,
        "parts": dataclasses.replace(parts, query_bias=biased, output_bias=biased),
    }


def _fields(content: Content) -> dict[str, Any]:
    return {
        **common(content, PARTS),
        # "gelu" stands in old files, and has always meant its approximation.
        "activation": "gelu_pytorch_tanh"
        if content["hidden_act"] == "gelu"
        else content["hidden_act"],
        "layer_kinds": (LayerKind(rope=rotary.rope(rotary.stated(content))),),
    }


FAMILY = Family(
    name="gemma",
    model_class="GemmaForCausalLM",
    prefix="model.",
    parts=PARTS,
    sizes=rotary.SIZES,
    defaults={**DEFAULTS, "num_key_value_heads": 16, "hidden_act": "gelu_pytorch_tanh"},
    required={"use_bidirectional_attention": None, "hidden_activation": "gelu_pytorch_tanh"},
    fields=_fields,
    names=rotary.names,
    ignored=rotary.IGNORED,
    published=("google/gemma-2b", "google/gemma-1.1-7b-it"),
    example={**rotary.EXAMPLE, "head_dim": 6, "attention_bias": True},
)
