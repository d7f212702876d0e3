"""ELECTRA (Clark et al. 2020, arXiv:2003.10555): BERT, whose embeddings may be narrower."""

import dataclasses
from typing import Any

from memarc.models.config import BackboneConfig
from memarc.models.families import bert
from memarc.models.family import Content, Family
from memarc.models.tensor_names import Entry, dense


def _fields(content: Content) -> dict[str, Any]:
    width = content["embedding_size"]
    return {"embedding_width": 0 if width == content["hidden_size"] else width}


def _names(config: BackboneConfig) -> list[Entry]:
    narrow = config.embedding_width
    if not narrow:
        return bert.names(config)
    path, name = ("embeddings", "widen"), "embeddings_project"
    return [*bert.names(config), *dense(path, name, narrow, config.width, True)]


FAMILY: Family = dataclasses.replace(
    bert.FAMILY,
    name="electra",
    model_class="ElectraModel",
    prefix="electra.",
    defaults={**bert.FAMILY.defaults, "embedding_size": 128},
    harmless=("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"),
    fields=_fields,
    names=_names,
    ignored=(
        *bert.BUFFERS,
        "discriminator_predictions.*",
        "generator_predictions.*",
        "generator_lm_head.*",
        "classifier.*",
        "qa_outputs.*",
    ),
    mask_head=None,  # The published models are discriminators.
    published=("google/electra-small-discriminator", "google/electra-base-discriminator"),
    example={**bert.EXAMPLE, "embedding_size": 14},
)
