"""LLaMA 2 and 3 (arXiv:2307.09288, 2407.21783), and what is published in their form."""

import dataclasses
from typing import Any

from memarc.models.config import LayerKind
from memarc.models.families import rotary
from memarc.models.family import Content, Family


def _fields(content: Content) -> dict[str, Any]:
    return {
        "head_size": rotary.head_size(content),
        "layer_kinds": (LayerKind(rope=rotary.rope(rotary.stated(content))),),
        "parts": dataclasses.replace(
            rotary.PARTS,
            query_bias=content["attention_bias"],
            output_bias=content["attention_bias"],
            mlp_bias=content["mlp_bias"],
        ),
    }


FAMILY = Family(
    name="llama",
    model_class="LlamaForCausalLM",
    prefix="model.",
    parts=rotary.PARTS,
    sizes=rotary.SIZES,
    defaults={**rotary.DEFAULTS, "attention_bias": False, "mlp_bias": False},
    required={"rope_interleaved": False},
    harmless=("pretraining_tp", "is_llama_config"),  # The first cuts a product into pieces.
    fields=_fields,
    names=rotary.names,
    ignored=rotary.IGNORED,
    published=(
        "meta-llama/Llama-2-7b-hf",
        "meta-llama/Llama-3.2-1B",
        "HuggingFaceTB/SmolLM2-135M",
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    ),
    example={
        **rotary.EXAMPLE,
        "head_dim": 6,
        "attention_bias": True,
        "mlp_bias": True,
        "max_position_embeddings": 40,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 30.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 3.0,
            "original_max_position_embeddings": 8,
        },
    },
)
