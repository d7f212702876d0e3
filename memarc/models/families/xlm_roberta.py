"""XLM-RoBERTa (Conneau et al. 2020, arXiv:1911.02116): RoBERTa for a hundred languages."""

import dataclasses

from memarc.models.families import roberta
from memarc.models.family import Family

FAMILY: Family = dataclasses.replace(
    roberta.FAMILY,
    name="xlm-roberta",
    model_class="XLMRobertaModel",
    published=("FacebookAI/xlm-roberta-base", "intfloat/multilingual-e5-base"),
)
