"""The one list of tuning methods, and how a name and options become a method."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from memarc.models.adapter import SeriesAdapter
from memarc.models.config import BackboneConfig
from memarc.models.lora import Lora
from memarc.models.method import Method
from memarc.models.reversible import Reversible
from memarc.models.side import Side
from memarc.models.subset import Bitfit, Full, Head

METHODS: Mapping[str, type[Method]] = {
    "full": Full,
    "head": Head,
    "bitfit": Bitfit,
    "lora": Lora,
    "adapter": SeriesAdapter,
    "side": Side,
    "reversible": Reversible,
}
"""Name -> class, whose instances are methods as `memarc.models.method.Method` says."""

REMAT_SUFFIX = "+remat"
"""Behind a method's name on command lines: keep only each layer's input for the backward pass."""


def make_method(name: str, options: Mapping[str, Any], config: BackboneConfig) -> Method:
    """Makes a method by name.

    Args:
      name: A key of `METHODS`.
      options: Fields of the method's class; those that are left out keep their defaults.
      config: Sizes of the backbone.

    Returns:
      The method.

    Raises:
      ValueError: For an unknown method or option, naming the choices, or a value that the method
        refuses.
    """
    chosen = all_options(name, options)  # Refuses an unknown method first.
    kind: Any = METHODS[name]
    return kind(config, **chosen)


def default_options(name: str) -> dict[str, Any]:
    """The options of a method, which are the fields of its class but the config.

    Args:
      name: A key of `METHODS`.

    Returns:
      Field -> default.

    Raises:
      ValueError: For an unknown method, naming the choices.
    """
    if name not in METHODS:
        raise ValueError(f"Unknown method {name!r}; choose one of {list(METHODS)}.")
    kind: Any = METHODS[name]
    fields = dataclasses.fields(kind)
    return {field.name: field.default for field in fields if field.name != "config"}


def all_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a method, updated by options.

    Args:
      name: A key of `METHODS`.
      options: Some of its options.

    Returns:
      Every option -> value.

    Raises:
      ValueError: For an unknown method or option, naming the choices.
    """
    defaults = default_options(name)
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise ValueError(
            f"Method {name!r} has no option {unknown}; its options are {list(defaults)}."
        )
    return {**defaults, **options}
