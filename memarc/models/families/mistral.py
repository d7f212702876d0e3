"""Mistral (Jiang et al. 2023, arXiv:2310.06825): LLaMA whose tokens read a window."""

from typing import Any

from memarc.models.config import LayerKind
from memarc.models.families import rotary
from memarc.models.family import Content, Family


def _fields(content: Content) -> dict[str, Any]:
    kind = LayerKind(
        reach=rotary.reach(content["sliding_window"]), rope=rotary.rope(rotary.stated(content))
    )
    return {"head_size": rotary.head_size(content), "layer_kinds": (kind,)}


FAMILY = Family(
    name="mistral",
    model_class="MistralForCausalLM",
    prefix="model.",
    parts=rotary.PARTS,
    sizes=rotary.SIZES,
    defaults={
        **rotary.DEFAULTS,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    required={"layer_types": None},
    fields=_fields,
    names=rotary.names,
    ignored=rotary.IGNORED,
    published=("mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.3"),
    example={**rotary.EXAMPLE, "sliding_window": 3},
)
