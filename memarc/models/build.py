"""Builds a model from names: a tuning method, its options, a backbone and a head."""

from collections.abc import Mapping
from typing import Any, overload

from memarc.models.classifier import Classifier, Regressor
from memarc.models.config import BackboneConfig
from memarc.models.head import MASK, WORDS, HeadConfig, ValueHeadConfig
from memarc.models.label_words import LabelWords
from memarc.models.language import LanguageConfig, LanguageModel
from memarc.models.methods import make_method


@overload
def build(
    method: str, options: Mapping[str, Any], config: BackboneConfig, head: HeadConfig
) -> Classifier: ...


@overload
def build(
    method: str, options: Mapping[str, Any], config: BackboneConfig, head: ValueHeadConfig
) -> Regressor: ...


@overload
def build(
    method: str, options: Mapping[str, Any], config: BackboneConfig, head: LanguageConfig
) -> LanguageModel: ...


def build(
    method: str,
    options: Mapping[str, Any],
    config: BackboneConfig,
    head: HeadConfig | ValueHeadConfig | LanguageConfig,
) -> Classifier | Regressor | LanguageModel:
    """Builds the model of a tuning method; what it does follows from the type of its head.

    Args:
      method: A name of `memarc.models.methods.METHODS`.
      options: Fields of the method's class; those that are left out keep their defaults.
      config: Sizes of the backbone; a language model needs a decoder.
      head: A `HeadConfig` makes a classifier (with pooling "words" one without a map), a
        `ValueHeadConfig` a model that gives a number, a `LanguageConfig` a language model.

    Returns:
      The model.

    Raises:
      ValueError: For an unknown method or option, naming the choices, or a backbone that does not
        go with the head.
    """
    if isinstance(head, LanguageConfig):
        if not config.parts.is_decoder:
            raise ValueError(f"A {config.kind} backbone is an encoder; generation needs a decoder.")
        return LanguageModel(make_method(method, options, config), head)
    if config.parts.is_decoder and head.pooling == "first":
        raise ValueError(
            f"head.pooling is 'first'; in a {config.kind} decoder the first token reads no other: "
            "choose 'last' or 'mean'."
        )
    if isinstance(head, ValueHeadConfig):
        return Regressor(make_method(method, options, config), head)
    if (head.pooling == MASK) != (config.transform is not None):
        raise ValueError(
            f"head.pooling is {head.pooling!r}, and the masked-language head of this {config.kind} "
            f"backbone {'is read' if config.transform else 'is not'}: pooling 'mask' needs it, by "
            "pretrained.load(.., fills_mask=True), and no other does."
        )
    if head.words and not config.parts.is_decoder and head.pooling != MASK:
        raise ValueError(
            f"A {config.kind} encoder has no table of words but for a mask (head.pooling 'mask'); "
            "leave head.words ()."
        )
    if head.pooling == WORDS:
        if method == "head":
            raise ValueError("Method 'head' trains a map, and head.pooling 'words' has none.")
        return LabelWords(make_method(method, options, config), head)
    return Classifier(make_method(method, options, config), head)
