"""Choices of the seeded grammars, equal on every machine and in every version of Python."""

import hashlib
import random
from collections.abc import MutableSequence, Sequence
from typing import Any, TypeVar

_Item = TypeVar("_Item")


def pick(rng: random.Random, options: Sequence[_Item]) -> _Item:
    """One of the options, evenly; Python promises the same ``random()`` for a seed, and no more."""
    return options[int(rng.random() * len(options))]


def shuffle(rng: random.Random, items: MutableSequence[Any]) -> None:
    """Puts items in an even random order."""
    for last in range(len(items) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        items[last], items[other] = items[other], items[last]


def hundredth(text: str) -> int:
    """0 to 99, by a hash of the text: which stream owns it."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100
