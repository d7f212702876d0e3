"""GPT-NeoX (Black et al. 2022, arXiv:2204.06745): attention beside the feed-forward block."""

import dataclasses
from typing import Any

from memarc.models.config import BackboneConfig, LayerKind, Parts
from memarc.models.families import rotary
from memarc.models.family import Content, Family
from memarc.models.tensor_names import Entry, dense, norm, side_by_side

_PARTS = Parts(is_decoder=True, positions="none", is_parallel=True)
_SHARE = 0.25  # Of a head's components, where nothing is stated.


def _fields(content: Content) -> dict[str, Any]:
    beside = {
        "rope_theta": content["rotary_emb_base"],
        "partial_rotary_factor": content["rotary_pct"],
    }
    stated = {key: x for key, x in rotary.stated(content).items() if x is not None}
    biased = content["attention_bias"]
    return {
        "layer_kinds": (LayerKind(rope=rotary.rope({**beside, **stated}, share=_SHARE)),),
        "parts": dataclasses.replace(
            _PARTS,
            is_parallel=content["use_parallel_residual"],
            query_bias=biased,
            output_bias=biased,
        ),
    }


def _names(config: BackboneConfig) -> list[Entry]:
    """Each head's queries, keys and values lie together."""
    d, f, name, k = config.width, config.feed_forward, "layers.{layer}.", config.head_width
    attention, feed = ("layers", "attention"), ("layers", "feed_forward")
    biased, of_heads = config.parts.query_bias, side_by_side((k, k, k), groups=config.heads)
    fused = [
        entry
        for key, part in zip(("query", "key", "value"), of_heads, strict=True)
        for entry in dense(
            (*attention, key), f"{name}attention.query_key_value", d, d, biased, part=part
        )
    ]
    return [
        Entry(("embeddings", "word"), "embed_in.weight", (config.vocab_size, d)),
        *norm((*attention, "norm"), f"{name}input_layernorm", d, True),
        *fused,
        *dense((*attention, "output"), f"{name}attention.dense", d, d, config.parts.output_bias),
        *norm((*feed, "norm"), f"{name}post_attention_layernorm", d, True),
        *dense((*feed, "intermediate"), f"{name}mlp.dense_h_to_4h", d, f, True),
        *dense((*feed, "output"), f"{name}mlp.dense_4h_to_h", f, d, True),
        *norm(("final", "norm"), "final_layer_norm", d, True),
    ]


FAMILY = Family(
    name="gpt_neox",
    model_class="GPTNeoXForCausalLM",
    prefix="gpt_neox.",
    parts=_PARTS,
    sizes={
        key: value
        for key, value in {**rotary.SIZES, "norm_epsilon": "layer_norm_eps"}.items()
        if key != "kv_heads"
    },
    defaults={
        **rotary.ROPE_KEYS,
        "rotary_emb_base": None,
        "rotary_pct": None,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "attention_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    },
    required={"is_decoder": False},
    fields=_fields,
    names=_names,
    ignored=(
        "score.*",
        "classifier.*",
        "qa_outputs.*",
        "layers.{layer}.attention.bias",
        "layers.{layer}.attention.masked_bias",
        "layers.{layer}.attention.rotary_emb.inv_freq",
    ),
    table="embed_out.weight",
    published=("EleutherAI/pythia-160m", "EleutherAI/pythia-1.4b", "EleutherAI/gpt-neox-20b"),
    example={
        "vocab_size": 61,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 42,
        "max_position_embeddings": 13,
        "layer_norm_eps": 1e-3,
        "rotary_pct": 0.5,
        "rotary_emb_base": 100,
    },
)
