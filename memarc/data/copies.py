"""Texts that repeat parts of what they are given, in another order: public, to pre-train on.

An input is several parts of random words, "green tea | £20 | Oslo", and its text the same parts
in random order, "Oslo , green tea , £20". They are meant to teach copying: to attend to where the
last token stood before, and to write what came after it.
"""

import random
from collections.abc import Sequence

from memarc.data.draws import pick, shuffle
from memarc.data.rows import Rows

_MOST_PARTS = 6
_MOST_WORDS = 4


def rows(count: int, seed: int, words: Sequence[str]) -> Rows:
    """Draws public rows.

    Args:
      count: Number of rows.
      seed: Fixes the rows; the same on every machine.
      words: What parts are made of.

    Returns:
      Rows of parts and a text.

    Raises:
      ValueError: If ``count`` is negative, or there are no words.
    """
    if count < 0 or not words:
        raise ValueError(
            f"count is {count} and there are {len(words)} words; give a count from 0 up and words."
        )
    rng = random.Random(f"copies/{seed}")
    inputs, targets = [], []
    for _ in range(count):
        parts = [_part(rng, words) for _ in range(1 + int(rng.random() * _MOST_PARTS))]
        inputs.append(" | ".join(parts))
        shuffle(rng, parts)
        targets.append(" , ".join(parts))
    return Rows(columns=(inputs, targets), labels=None)


def _part(rng: random.Random, words: Sequence[str]) -> str:
    """One to four words."""
    return " ".join(pick(rng, words) for _ in range(1 + int(rng.random() * _MOST_WORDS)))
