"""What a family of backbones is: how its config.json and its tensors are read."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from memarc.models.config import BackboneConfig, Parts
from memarc.models.tensor_names import Entry, dense, norm

Content = Mapping[str, Any]
"""The content of a config.json."""


@dataclasses.dataclass(frozen=True)
class MaskHead:
    """The head of a family's masked-language model, by names in a file, which have no prefix there.

    Attributes:
      dense: The map [D, D].
      norm: The norm behind it.
      bias: The bias of words, whose table is that of the embeddings (`Family.table` if repeated).
      activation: Between map and norm; "" is the backbone's own.
      dense_bias: Whether the map has a bias.
      required: Key of config.json -> the one value with which the head is the function that we
        compute.
    """

    dense: str
    norm: str
    bias: str
    activation: str = ""
    dense_bias: bool = True
    required: Content = dataclasses.field(default_factory=dict)

    def names(self, config: BackboneConfig) -> list[Entry]:
        """Every leaf of the head with its name in a file."""
        path, d = ("final", "transform"), config.width
        return [
            *dense((*path, "dense"), self.dense, d, d, self.dense_bias),
            *norm((*path, "norm"), self.norm, d, config.parts.norm_bias),
            Entry(("final", "word_bias"), self.bias, (config.vocab_size,)),
        ]

    def holds(self, name: str) -> bool:
        """Whether a tensor is the head's."""
        return name == self.bias or name.rpartition(".")[0] in (self.dense, self.norm)


@dataclasses.dataclass(frozen=True)
class Family:
    """One family; its file in `memarc.models.families` says all that is its own.

    Every key of a config.json must be known: one of ``sizes``, ``defaults``, ``required`` or
    ``harmless``, or one that is harmless in all families (`memarc.models.hub_config`).

    Attributes:
      name: The ``model_type``.
      model_class: The class of transformers that opens what we save.
      prefix: What may stand before all names of tensors, such as "bert.".
      parts: What its layers have where a config.json does not say otherwise.
      sizes: Field of `BackboneConfig` -> key of config.json.
      defaults: Key -> the value that transformers takes where a config.json has no such key; every
        size without a default must be given.
      required: Key -> the one value with which the model is the function that we compute.
      harmless: Keys that do not change the function.
      fields: ``content with defaults -> more fields of BackboneConfig``; ValueError, beginning
        with the key, for what is not supported.
      names: Every leaf of the tree with its names in a file, but for the output table.
      ignored: Names without prefix of tensors that are not read: other tasks' heads, tables of
        what is computed. "{layer}" stands for a number, "*" at the end for anything.
      table: The name of a decoder's output table, and of the one that a masked-language head may
        repeat.
      mask_head: The head of its masked-language model; None where there is none that we read.
      published: Some models that it opens.
      example: A tiny config.json of odd sizes, with all that is particular, for the tests.
    """

    name: str
    model_class: str
    prefix: str
    parts: Parts
    sizes: Mapping[str, str]
    names: Callable[[BackboneConfig], list[Entry]]
    ignored: tuple[str, ...]
    published: tuple[str, ...]
    example: Content
    defaults: Content = dataclasses.field(default_factory=dict)
    required: Content = dataclasses.field(default_factory=dict)
    harmless: tuple[str, ...] = ()
    fields: Callable[[Content], Mapping[str, Any]] = lambda content: {}
    table: str = "lm_head.weight"
    mask_head: MaskHead | None = None

    def config(self, content: Content, **more: Any) -> BackboneConfig:
        """The backbone that a config.json states.

        Args:
          content: Sizes and features; an absent key has the family's default.
          **more: Other fields of `BackboneConfig`, the compute dtype among them.

        Returns:
          The config.

        Raises:
          ValueError: If a size is missing or out of range, or a feature is not supported.
        """
        known = {**self.defaults, **content}
        missing = [
            key
            for key in self.sizes.values()
            if known.get(key) is None and key not in self.defaults
        ]
        if missing:
            raise ValueError(f"lacks {missing}; add them as the model was trained.")
        sizes = {field: known[key] for field, key in self.sizes.items() if known[key] is not None}
        fields = {"parts": self.parts, **sizes, **self.fields(known), **more}
        return BackboneConfig(kind=self.name, **fields)
