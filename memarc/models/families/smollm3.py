"""SmolLM3 (Hugging Face 2025): LLaMA, of which some layers know no positions."""

import dataclasses
from typing import Any

from memarc.models.config import LayerKind
from memarc.models.families import rotary
from memarc.models.family import Content, Family


def _fields(content: Content) -> dict[str, Any]:
    turns = rotary.rope(rotary.stated(content), theta=2000000.0)
    window = rotary.window(content)
    every, layers = content["no_rope_layer_interval"], content["num_hidden_layers"]
    turning = content["no_rope_layers"] or [int((i + 1) % every != 0) for i in range(layers)]
    types = content["layer_types"] or [
        rotary.FULL if turns_here else rotary.SLIDING for turns_here in turning
    ]
    if not len(turning) == len(types) == layers:
        raise ValueError(
            f"no_rope_layers has {len(turning)} entries and layer_types {len(types)}; give one of "
            f"each for {layers} layers."
        )
    kinds = [
        LayerKind(
            reach=rotary.reach(window) if name == rotary.SLIDING else None,
            rope=turns if turns_here else None,
        )
        for turns_here, name in zip(turning, types, strict=True)
    ]
    return {
        **rotary.of_layers(kinds),
        "head_size": rotary.head_size(content),
        "parts": dataclasses.replace(
            rotary.PARTS,
            query_bias=content["attention_bias"],
            output_bias=content["attention_bias"],
            mlp_bias=content["mlp_bias"],
        ),
    }


FAMILY = Family(
    name="smollm3",
    model_class="SmolLM3ForCausalLM",
    prefix="model.",
    parts=rotary.PARTS,
    sizes=rotary.SIZES,
    defaults={
        **rotary.DEFAULTS,
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
        "no_rope_layers": None,
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
        "sliding_window": None,
        "layer_types": None,
        "attention_bias": False,
        "mlp_bias": False,
    },
    harmless=("pretraining_tp", "max_window_layers"),
    fields=_fields,
    names=rotary.names,
    ignored=rotary.IGNORED,
    published=("HuggingFaceTB/SmolLM3-3B", "HuggingFaceTB/SmolLM3-3B-Base"),
    example={**rotary.EXAMPLE, "no_rope_layer_interval": 2, "rope_theta": 300.0},
)
