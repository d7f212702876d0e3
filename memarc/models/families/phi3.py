"""Phi-3 (arXiv:2404.14219): LLaMA whose maps stand side by side in the files."""

from typing import Any

from memarc.models.config import BackboneConfig, LayerKind
from memarc.models.families import rotary
from memarc.models.family import Content, Family
from memarc.models.tensor_names import Entry, dense, side_by_side


def _fields(content: Content) -> dict[str, Any]:
    share = {"partial_rotary_factor": content["partial_rotary_factor"]}
    turns = rotary.rope(share | rotary.stated(content), share=1.0)
    kind = LayerKind(reach=rotary.reach(content["sliding_window"]), rope=turns)
    return {"head_size": rotary.head_size(content), "layer_kinds": (kind,)}


def _names(config: BackboneConfig) -> list[Entry]:
    d, f, name = config.width, config.feed_forward, "layers.{layer}."
    asked, told = config.heads * config.head_width, config.key_heads * config.head_width
    attention, feed = ("layers", "attention"), ("layers", "feed_forward")
    fused = (
        (f"{name}self_attn.qkv_proj", attention, {"query": asked, "key": told, "value": told}),
        (f"{name}mlp.gate_up_proj", feed, {"intermediate": f, "gated": f}),
    )
    parts = [
        entry
        for its, path, sizes in fused
        for key, part in zip(sizes, side_by_side(tuple(sizes.values())), strict=True)
        for entry in dense((*path, key), its, d, part.size, False, part=part)
    ]
    return [
        *rotary.embeddings_and_last_norm(config),
        *parts,
        *dense((*attention, "output"), f"{name}self_attn.o_proj", asked, d, False),
        *dense((*feed, "output"), f"{name}mlp.down_proj", f, d, False),
        *rotary.norms(config),
    ]


FAMILY = Family(
    name="phi3",
    model_class="Phi3ForCausalLM",
    prefix="model.",
    parts=rotary.PARTS,
    sizes=rotary.SIZES,
    defaults={
        **rotary.DEFAULTS,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "partial_rotary_factor": None,
    },
    # The original context matters to a scaling alone, and that of Phi-3 is refused.
    harmless=("original_max_position_embeddings",),
    required={"attention_bias": False},
    fields=_fields,
    names=_names,
    ignored=rotary.IGNORED,
    published=("microsoft/Phi-3-mini-4k-instruct", "microsoft/Phi-3-medium-4k-instruct"),
    example={
        **rotary.EXAMPLE,
        "hidden_size": 48,
        "sliding_window": 4,
        "partial_rotary_factor": 0.5,
    },
)
