"""GPT-2 (Radford et al. 2019)."""

from typing import Any

from memarc.models.config import BackboneConfig, Parts
from memarc.models.family import Content, Family
from memarc.models.tensor_names import Entry, dense, norm, side_by_side


def _fields(content: Content) -> dict[str, Any]:
    return {"feed_forward": content["n_inner"] or 4 * content["n_embd"]}


def _names(config: BackboneConfig) -> list[Entry]:
    """Maps are stored [I, O] here, and queries, keys and values as one."""
    d, f, name = config.width, config.feed_forward, "h.{layer}."
    attention, feed = ("layers", "attention"), ("layers", "feed_forward")

    def plain(path: tuple[str, ...], its: str, inputs: int, outputs: int) -> list[Entry]:
        return dense(path, name + its, inputs, outputs, True, transposed=False)

    fused = [
        entry
        for key, part in zip(("query", "key", "value"), side_by_side((d, d, d)), strict=True)
        for entry in dense(
            (*attention, key), f"{name}attn.c_attn", d, d, True, transposed=False, part=part
        )
    ]
    return [
        Entry(("embeddings", "word"), "wte.weight", (config.vocab_size, d)),
        Entry(("embeddings", "position"), "wpe.weight", (config.max_positions, d)),
        *norm((*attention, "norm"), f"{name}ln_1", d, True),
        *fused,
        *plain((*attention, "output"), "attn.c_proj", d, d),
        *norm((*feed, "norm"), f"{name}ln_2", d, True),
        *plain((*feed, "intermediate"), "mlp.c_fc", d, f),
        *plain((*feed, "output"), "mlp.c_proj", f, d),
        *norm(("final", "norm"), "ln_f", d, True),
    ]


FAMILY = Family(
    name="gpt2",
    model_class="GPT2LMHeadModel",
    prefix="transformer.",
    parts=Parts(is_decoder=True),
    sizes={
        "vocab_size": "vocab_size",
        "width": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "max_positions": "n_positions",
        "norm_epsilon": "layer_norm_epsilon",
        "activation": "activation_function",
        "feed_forward": "n_inner",
    },
    defaults={
        "n_inner": None,
        "tie_word_embeddings": True,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    },
    required={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    harmless=(
        "n_ctx",
        "reorder_and_upcast_attn",
        "summary_type",
        "summary_use_proj",
        "summary_activation",
        "summary_proj_to_labels",
        "summary_first_dropout",
    ),
    fields=_fields,
    names=_names,
    ignored=("score.*", "classifier.*", "h.{layer}.attn.bias", "h.{layer}.attn.masked_bias"),
    published=("openai-community/gpt2", "openai-community/gpt2-medium", "distilbert/distilgpt2"),
    example={
        "vocab_size": 61,
        "n_embd": 24,
        "n_layer": 3,
        "n_head": 3,
        "n_inner": 42,
        "n_positions": 13,
        "layer_norm_epsilon": 1e-3,
    },
)
