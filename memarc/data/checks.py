"""Checks of config fields; each message names the field, what was given and what is wanted."""

from collections.abc import Sequence
from typing import Any


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"Unknown {name} {value!r}; choose one of {', '.join(choices)}.")


def check_whole(name: str, value: Any, least: int) -> None:
    """Raises ValueError unless ``value`` is a whole number from ``least`` up."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name} is {value!r}; give a whole number from {least} up.")


def check_text(name: str, value: Any, wanted: str) -> None:
    """Raises ValueError unless ``value`` is a text that is not empty; ``wanted`` says of what."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {value!r}; give {wanted}.")
