"""MPNet (Song et al. 2020, arXiv:2004.09297): RoBERTa with biases of distances in attention."""

import dataclasses
from typing import Any

from memarc.models.config import BackboneConfig
from memarc.models.families import bert, roberta
from memarc.models.family import Content, Family
from memarc.models.tensor_names import Entry, dense, norm


def _fields(content: Content) -> dict[str, Any]:
    return {"distance_buckets": content["relative_attention_num_buckets"]}


def _names(config: BackboneConfig) -> list[Entry]:
    d, f, name = config.width, config.feed_forward, "encoder.layer.{layer}."
    attention, feed = ("layers", "attention"), ("layers", "feed_forward")
    biases = (config.distance_buckets, config.heads)
    return [
        *bert.embeddings(config, d, "embeddings"),
        Entry(
            (*attention, "distance"), "encoder.relative_attention_bias.weight", biases, shared=True
        ),
        *dense((*attention, "query"), f"{name}attention.attn.q", d, d, True),
        *dense((*attention, "key"), f"{name}attention.attn.k", d, d, True),
        *dense((*attention, "value"), f"{name}attention.attn.v", d, d, True),
        *dense((*attention, "output"), f"{name}attention.attn.o", d, d, True),
        *norm((*attention, "norm"), f"{name}attention.LayerNorm", d, True),
        *dense((*feed, "intermediate"), f"{name}intermediate.dense", d, f, True),
        *dense((*feed, "output"), f"{name}output.dense", f, d, True),
        *norm((*feed, "norm"), f"{name}output.LayerNorm", d, True),
    ]


FAMILY: Family = dataclasses.replace(
    roberta.FAMILY,
    name="mpnet",
    model_class="MPNetModel",
    prefix="mpnet.",
    sizes={field: key for field, key in bert.SIZES.items() if field != "type_vocab"},
    # transformers takes 32 buckets and 1 as the padding of positions, whatever is written.
    defaults={**roberta.FAMILY.defaults, "relative_attention_num_buckets": 32},
    required={"pad_token_id": 1, "relative_attention_num_buckets": 32},
    fields=_fields,
    names=_names,
    published=("microsoft/mpnet-base", "sentence-transformers/all-mpnet-base-v2"),
    example={
        key: value
        for key, value in {
            **bert.EXAMPLE,
            "pad_token_id": 1,
            "max_position_embeddings": 45,
            "relative_attention_num_buckets": 32,
        }.items()
        if key != "type_vocab_size"
    },
)
