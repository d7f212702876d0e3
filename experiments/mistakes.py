"""What a mistake means that other packages name poorly: fields of a config, and missing devices."""

import difflib
import os
import traceback
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags


def unknown_field(argv: Sequence[str]) -> str | None:
    """Names the first field on a command line that its config does not have, and its nearest.

    Args:
      argv: The command line, which was refused.

    Returns:
      A message; None if there is no such field, or no config.
    """
    config = _config_alone(argv)
    for argument in argv:
        top, *keys = argument.lstrip("-").partition("=")[0].split(".")
        section: Any = config
        place = top
        for key in keys if top == "config" else ():
            if not hasattr(section, "keys"):
                break
            names = sorted(section.keys())
            if key not in names:
                # At the top anything may be meant; within a section one of its fields is.
                near = difflib.get_close_matches(key, names, 1, 0.6 if place == top else 0.0)
                meant = f" (did you mean {near[0]}?)" if near else ""
                return f"There is no field {place}.{key}{meant}; there are {', '.join(names)}."
            section, place = section[key], f"{place}.{key}"
    return None


def _config_alone(argv: Sequence[str]) -> Any:
    """The config that a command line names, as it is without what is set there; None if none."""
    alone, given = flags.FlagValues(), [x for x in argv if x.lstrip("-").startswith("config=")]
    line = [argv[0], *given]
    config_flags.DEFINE_config_file("config", None, "", flag_values=alone, sys_argv=line)
    try:
        alone(line)
        return alone["config"].value
    except (flags.Error, ValueError, KeyError, AttributeError, TypeError, OSError):
        return None  # Then the file itself is what was refused.


def no_device(error: Exception) -> str | None:
    """Says that there is no device of the kind that the environment asks JAX for.

    Args:
      error: What was raised; None is given for all errors from elsewhere.
    """
    asked, frames = os.environ.get("JAX_PLATFORMS"), traceback.extract_tb(error.__traceback__)
    if not asked or not frames or frames[-1].name != "backends":
        return None
    return (
        f"JAX finds no device of JAX_PLATFORMS={asked!r} here. Leave the variable out to use what "
        f"there is, or install memarc[cuda] or memarc[tpu] on a machine with one. {error}".strip()
    )
