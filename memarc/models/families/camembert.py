"""CamemBERT (Martin et al. 2020, arXiv:1911.03894): RoBERTa for French."""

import dataclasses

from memarc.models.families import roberta
from memarc.models.family import Family

FAMILY: Family = dataclasses.replace(
    roberta.FAMILY,
    name="camembert",
    model_class="CamembertModel",
    published=("almanach/camembert-base",),
)
