"""Qwen2 and Qwen2.5 (arXiv:2407.10671, 2412.15115): LLaMA with biases of queries, keys, values."""

import dataclasses
from typing import Any

from memarc.models.config import LayerKind
from memarc.models.families import rotary
from memarc.models.family import Content, Family

_PARTS = dataclasses.replace(rotary.PARTS, query_bias=True)

WINDOW_KEYS = {
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}


def kinds(content: Content) -> dict[str, Any]:
    """Layers from ``max_window_layers`` on read a window, if windows are used at all."""
    window = rotary.window(content)
    turns = rotary.rope(rotary.stated(content))
    types = content["layer_types"] or [
        rotary.FULL if window is None or i < content["max_window_layers"] else rotary.SLIDING
        for i in range(content["num_hidden_layers"])
    ]
    full, sliding = LayerKind(rope=turns), LayerKind(reach=rotary.reach(window), rope=turns)
    return rotary.by_type(types, {rotary.FULL: full, rotary.SLIDING: sliding})


def _fields(content: Content) -> dict[str, Any]:
    return {**kinds(content), "head_size": rotary.head_size(content)}


FAMILY = Family(
    name="qwen2",
    model_class="Qwen2ForCausalLM",
    prefix="model.",
    parts=_PARTS,
    sizes=rotary.SIZES,
    defaults={**rotary.DEFAULTS, "num_key_value_heads": 32, **WINDOW_KEYS},
    required={"use_mrope": False},
    fields=_fields,
    names=rotary.names,
    ignored=rotary.IGNORED,
    published=("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2-1.5B"),
    example={
        **rotary.EXAMPLE,
        "use_sliding_window": True,
        "sliding_window": 3,
        "max_window_layers": 1,
    },
)
