"""The most rows, or whatever is counted, whose bytes are within a limit."""

import math
from collections.abc import Callable


def most_that_fit(taken: Callable[[int], int | None], limit: int, most: int) -> int | None:
    """The most rows, or whatever is counted, whose bytes are within a limit, to a sixteenth.

    Bytes grow nearly in proportion, so a line through the last two numbers that were tried says
    where to look; every other time it is between what fits and what does not, lest a line misleads.

    Args:
      taken: ``rows -> bytes``, None where they do not fit whatever the limit; each call is slow.
      limit: In bytes.
      most: The most rows that are wanted.

    Returns:
      A number that was tried and fits, and of which a sixteenth more does not, or was not wanted;
      None if not even one fits.
    """
    fits, fails = 0, most + 1
    tried: dict[int, int | None] = {}
    while fails - fits > max(1, fits // 16):
        if len(tried) < 2:
            rows = min(8, most) if tried else 1
        elif len(tried) % 2:
            rows = math.isqrt(max(1, fits) * fails)
        else:
            known = {n: x for n, x in tried.items() if x is not None and n <= fails}
            rows = _on_line(known, limit)
        rows = min(max(rows, fits + 1), fails - 1)
        tried[rows] = found = taken(rows)
        if found is not None and found <= limit:
            fits = rows
        else:
            fails = rows
    return fits or None


def _on_line(tried: dict[int, int], limit: int) -> int:
    """Where a line through the two largest numbers, or from the origin, meets a limit."""
    few, many = [0, 0, *sorted(tried)][-2:]
    less, more = tried.get(few, 0), tried.get(many, 0)
    slope = max(1.0, (more - less) / max(1, many - few))
    return few + int((limit - less) / slope)
