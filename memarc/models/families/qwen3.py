"""Qwen3 (arXiv:2505.09388): LLaMA with norms of each head's queries and keys."""

import dataclasses
from typing import Any

from memarc.models.families import qwen2, rotary
from memarc.models.family import Content, Family

_PARTS = dataclasses.replace(rotary.PARTS, query_norm="head")


def _fields(content: Content) -> dict[str, Any]:
    biased = content["attention_bias"]
    return {
        **qwen2.kinds(content),
        "head_size": rotary.head_size(content),
        "parts": dataclasses.replace(_PARTS, query_bias=biased, output_bias=biased),
    }


FAMILY: Family = dataclasses.replace(
    qwen2.FAMILY,
    name="qwen3",
    model_class="Qwen3ForCausalLM",
    parts=_PARTS,
    defaults={**qwen2.FAMILY.defaults, "head_dim": 128, "attention_bias": False},
    fields=_fields,
    published=("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"),
    example={**rotary.EXAMPLE, "head_dim": 6, "attention_bias": True},
)
