"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT without token types."""

import dataclasses
from typing import Any

from memarc.models.config import BackboneConfig
from memarc.models.families import bert
from memarc.models.family import Content, Family, MaskHead
from memarc.models.tensor_names import Entry, dense, norm


def _fields(content: Content) -> dict[str, Any]:
    del content
    return {"norm_epsilon": 1e-12}  # Not in the config.json.


def _names(config: BackboneConfig) -> list[Entry]:
    d, f, name = config.width, config.feed_forward, "transformer.layer.{layer}."
    attention, feed = ("layers", "attention"), ("layers", "feed_forward")
    return [
        *bert.embeddings(config, d, "embeddings"),
        *dense((*attention, "query"), f"{name}attention.q_lin", d, d, True),
        *dense((*attention, "key"), f"{name}attention.k_lin", d, d, True),
        *dense((*attention, "value"), f"{name}attention.v_lin", d, d, True),
        *dense((*attention, "output"), f"{name}attention.out_lin", d, d, True),
        *norm((*attention, "norm"), f"{name}sa_layer_norm", d, True),
        *dense((*feed, "intermediate"), f"{name}ffn.lin1", d, f, True),
        *dense((*feed, "output"), f"{name}ffn.lin2", f, d, True),
        *norm((*feed, "norm"), f"{name}output_layer_norm", d, True),
    ]


FAMILY: Family = dataclasses.replace(
    bert.FAMILY,
    name="distilbert",
    model_class="DistilBertModel",
    prefix="distilbert.",
    sizes={
        "vocab_size": "vocab_size",
        "width": "dim",
        "layers": "n_layers",
        "heads": "n_heads",
        "feed_forward": "hidden_dim",
        "max_positions": "max_position_embeddings",
        "activation": "activation",
        "pad_id": "pad_token_id",
    },
    defaults={"pad_token_id": 0, "activation": "gelu"},
    required={},
    harmless=("sinusoidal_pos_embds", "qa_dropout", "seq_classif_dropout", "tie_weights_"),
    fields=_fields,
    names=_names,
    ignored=(
        *bert.BUFFERS,
        "vocab_transform.*",
        "vocab_layer_norm.*",
        "vocab_projector.*",
        "pre_classifier.*",
        "classifier.*",
        "qa_outputs.*",
    ),
    table="vocab_projector.weight",
    mask_head=MaskHead("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
    published=(
        "distilbert/distilbert-base-uncased",
        "distilbert/distilbert-base-multilingual-cased",
    ),
    example={
        "vocab_size": 61,
        "dim": 24,
        "n_layers": 3,
        "n_heads": 3,
        "hidden_dim": 42,
        "max_position_embeddings": 13,
        "activation": "gelu",
        "pad_token_id": 0,
    },
)
