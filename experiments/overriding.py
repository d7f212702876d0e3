"""What the command line sets is meant for all runs of a config: their own values give way."""

import functools
from collections.abc import Sequence
from typing import Any

_TOLD = ("task", "method", "privacy.epsilon")
"""The fields of a run that its name tells."""


def give_way(config: dict[str, Any], path: Sequence[str]) -> None:
    """Takes one field out of what each run of a config changes.

    A run that loses what its name tells is another run, and gets a name that says so.
    """
    if path[0] == "more" and len(path) > 2:
        give_way(config["more"][path[1]], path[2:])
        return
    given = functools.reduce(lambda section, key: section[key], path, config)
    runs = {}
    for name, changes in config.get("runs", {}).items():
        section = functools.reduce(lambda found, key: found.get(key, {}), path[:-1], changes)
        own, field = section.pop(path[-1], given), ".".join(path)
        is_another = field in _TOLD and own != given
        runs[f"{name}+{field}={str(given).removesuffix('.0')}" if is_another else name] = changes
    if runs:
        config["runs"] = runs
