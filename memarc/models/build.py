"""Builds a model from names: a tuning method, its options, a backbone and a head."""

from collections.abc import Mapping
from typing import Any, overload

from memarc.models.classifier import Classifier
from memarc.models.config import BackboneConfig
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig, LanguageModel
from memarc.models.methods import make_method


@overload
def build(
    method: str, options: Mapping[str, Any], config: BackboneConfig, head: HeadConfig
) -> Classifier: ...


@overload
def build(
    method: str, options: Mapping[str, Any], config: BackboneConfig, head: LanguageConfig
) -> LanguageModel: ...


def build(
    method: str,
    options: Mapping[str, Any],
    config: BackboneConfig,
    head: HeadConfig | LanguageConfig,
) -> Classifier | LanguageModel:
    """Builds the model of a tuning method; what it does follows from the type of its head.

    Args:
      method: A name of `memarc.models.methods.METHODS`.
      options: Fields of the method's class; those that are left out keep their defaults.
      config: Sizes of the backbone: an encoder for a classifier, a decoder for a language model.
      head: A `HeadConfig` makes a classifier, a `LanguageConfig` a language model.

    Returns:
      The model.

    Raises:
      ValueError: For an unknown method or option, naming the choices, or a backbone that does not
        go with the head.
    """
    check_kind(config, writes=isinstance(head, LanguageConfig))
    chosen = make_method(method, options, config)
    return (
        LanguageModel(chosen, head)
        if isinstance(head, LanguageConfig)
        else Classifier(chosen, head)
    )


def check_kind(config: BackboneConfig, *, writes: bool) -> None:
    """Checks that a backbone does what a task needs.

    Args:
      config: The backbone's.
      writes: Whether the task is one of generation; else it is one of classification.

    Raises:
      ValueError: If an encoder shall write, or a decoder shall classify.
    """
    if writes and not config.parts.is_decoder:
        raise ValueError(f"A {config.kind} backbone is an encoder; generation needs a decoder.")
    if config.parts.is_decoder and not writes:
        raise ValueError(f"A {config.kind} backbone is a decoder; classification needs an encoder.")
