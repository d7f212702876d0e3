"""OLMo 2 (arXiv:2501.00656): norms inside blocks, and of whole queries and keys."""

import dataclasses
from typing import Any

from memarc.models.config import LayerKind
from memarc.models.families import rotary
from memarc.models.family import Content, Family

_PARTS = dataclasses.replace(rotary.PARTS, norms=("inside",), query_norm="whole")


def _fields(content: Content) -> dict[str, Any]:
    biased = content["attention_bias"]
    return {
        "head_size": rotary.head_size(content),
        "layer_kinds": (LayerKind(rope=rotary.rope(rotary.stated(content))),),
        "parts": dataclasses.replace(_PARTS, query_bias=biased, output_bias=biased),
    }


FAMILY = Family(
    name="olmo2",
    model_class="Olmo2ForCausalLM",
    prefix="model.",
    parts=_PARTS,
    sizes=rotary.SIZES,
    defaults={**rotary.DEFAULTS, "rms_norm_eps": 1e-5, "attention_bias": False},
    fields=_fields,
    names=rotary.names,
    ignored=rotary.IGNORED,
    published=("allenai/OLMo-2-0425-1B", "allenai/OLMo-2-1124-7B"),
    example={
        **rotary.EXAMPLE,
        "attention_bias": True,
        "rope_scaling": {"type": "linear", "factor": 3.0},
        "rope_theta": 50.0,
    },
)
