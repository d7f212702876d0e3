"""All families of backbones: each is a file here, and a line in `_ALL` (and its import)."""

from collections.abc import Mapping
from typing import Any

from memarc.models.config import BackboneConfig
from memarc.models.families import (
    bert,
    camembert,
    distilbert,
    electra,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    llama,
    mistral,
    modernbert,
    mpnet,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    roberta,
    smollm3,
    xlm_roberta,
)
from memarc.models.family import Family
from memarc.models.tensor_names import Entry

_ALL = (
    bert.FAMILY,
    roberta.FAMILY,
    xlm_roberta.FAMILY,
    camembert.FAMILY,
    electra.FAMILY,
    distilbert.FAMILY,
    mpnet.FAMILY,
    modernbert.FAMILY,
    gpt2.FAMILY,
    llama.FAMILY,
    mistral.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    smollm3.FAMILY,
    phi3.FAMILY,
    olmo2.FAMILY,
    gemma.FAMILY,
    gemma2.FAMILY,
    gemma3.FAMILY,
    gpt_neox.FAMILY,
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in _ALL}
"""``model_type`` of a config.json -> the family."""


def make_config(kind: str, **fields: Any) -> BackboneConfig:
    """Makes the config of a family's backbone from sizes.

    Args:
      kind: The name of the family, a ``model_type``.
      **fields: Fields of `BackboneConfig`. What is left out is as transformers takes it for a
        config.json of these sizes.

    Returns:
      The config.

    Raises:
      ValueError: For an unknown family, or sizes that are missing or out of range.
    """
    family = get(kind)
    sizes = {key: fields.pop(name) for name, key in family.sizes.items() if name in fields}
    return family.config(sizes, **fields)


def get(kind: Any) -> Family:
    """A family by its ``model_type``.

    Raises:
      ValueError: For an unknown one, naming the choices.
    """
    if kind not in FAMILIES:
        raise ValueError(f"model_type is {kind!r}; the supported ones are {tuple(FAMILIES)}.")
    return FAMILIES[kind]


def name_table(config: BackboneConfig) -> list[Entry]:
    """Lists every leaf of the backbone's tree with its names in a file."""
    family = get(config.kind)
    found = family.names(config)
    if config.has_table:
        shape = (config.vocab_size, config.width)
        found = [*found, Entry(("final", "table"), family.table, shape)]
    if config.transform and family.mask_head:
        found = [*found, *family.mask_head.names(config)]
    return found
