"""RoBERTa (Liu et al. 2019, arXiv:1907.11692): BERT whose padding takes no position."""

import dataclasses

from memarc.models.families import bert
from memarc.models.family import Family, MaskHead

PARTS = dataclasses.replace(bert.FAMILY.parts, positions="table after padding")

FAMILY: Family = dataclasses.replace(
    bert.FAMILY,
    name="roberta",
    model_class="RobertaModel",
    prefix="roberta.",
    parts=PARTS,
    defaults={**bert.FAMILY.defaults, "pad_token_id": 1},
    table="lm_head.decoder.weight",
    mask_head=MaskHead(
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        bias="lm_head.bias",
        activation="gelu",  # Whatever the config.json says of the layers.
    ),
    published=("FacebookAI/roberta-base", "FacebookAI/roberta-large"),
    example={**bert.EXAMPLE, "pad_token_id": 1, "max_position_embeddings": 15},
)
