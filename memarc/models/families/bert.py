"""BERT (Devlin et al. 2019, arXiv:1810.04805), and what encoders after it share.

Axes: D width, F feed-forward width.
"""

from memarc.models.config import BackboneConfig, Parts
from memarc.models.family import Family, MaskHead
from memarc.models.tensor_names import Entry, dense, norm

SIZES = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "activation": "hidden_act",
    "norm_epsilon": "layer_norm_eps",
    "type_vocab": "type_vocab_size",
    "pad_id": "pad_token_id",
}
REQUIRED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
HEADS = ("pooler.*", "cls.*", "lm_head.*", "classifier.*", "qa_outputs.*")
"""Heads of tasks, in files of whole models."""

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""0, 1, 2, .. and zeros, which old files hold."""

EXAMPLE = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 42,
    "max_position_embeddings": 13,
    "type_vocab_size": 5,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-3,
    "pad_token_id": 0,
}


def names(config: BackboneConfig) -> list[Entry]:
    """The tensors of BERT."""
    width = config.embedding_width or config.width
    return [*embeddings(config, width, "embeddings"), *layers(config)]


def embeddings(config: BackboneConfig, width: int, name: str) -> list[Entry]:
    """Tables of words, positions and, if there are any, token types, and their norm."""
    rows = {"word": config.vocab_size, "position": config.max_positions}
    if config.type_vocab:
        rows["token_type"] = config.type_vocab
    tables = [
        Entry(("embeddings", key), f"{name}.{key}_embeddings.weight", (size, width))
        for key, size in rows.items()
    ]
    return [*tables, *norm(("embeddings", "norm"), f"{name}.LayerNorm", width, True)]


def layers(config: BackboneConfig) -> list[Entry]:
    """The tensors of a layer."""
    d, f, name = config.width, config.feed_forward, "encoder.layer.{layer}."
    attention, feed = ("layers", "attention"), ("layers", "feed_forward")
    return [
        *dense((*attention, "query"), f"{name}attention.self.query", d, d, True),
        *dense((*attention, "key"), f"{name}attention.self.key", d, d, True),
        *dense((*attention, "value"), f"{name}attention.self.value", d, d, True),
        *dense((*attention, "output"), f"{name}attention.output.dense", d, d, True),
        *norm((*attention, "norm"), f"{name}attention.output.LayerNorm", d, True),
        *dense((*feed, "intermediate"), f"{name}intermediate.dense", d, f, True),
        *dense((*feed, "output"), f"{name}output.dense", f, d, True),
        *norm((*feed, "norm"), f"{name}output.LayerNorm", d, True),
    ]


FAMILY = Family(
    name="bert",
    model_class="BertModel",
    prefix="bert.",
    parts=Parts(is_decoder=False, norms=("after",), final_norm=False, embedding_norm=True),
    sizes=SIZES,
    defaults={"layer_norm_eps": 1e-12, "pad_token_id": 0, "hidden_act": "gelu"},
    required=REQUIRED,
    names=names,
    ignored=(*HEADS, *BUFFERS),
    table="cls.predictions.decoder.weight",
    mask_head=MaskHead(
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        bias="cls.predictions.bias",
    ),
    published=(
        "google-bert/bert-base-uncased",
        "google-bert/bert-base-multilingual-cased",
        "sentence-transformers/all-MiniLM-L6-v2",
    ),
    example=EXAMPLE,
)
