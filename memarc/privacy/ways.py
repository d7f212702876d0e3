"""Chooses how clipped sums are computed by what a user wants: least memory, speed, or some bytes.

A way is an engine, rows at once, and what the backward pass keeps: all give the same sum.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

BALANCED = "balanced"
"""The engine of the least memory times work, at given rows and remat (`memarc.privacy.auto`)."""

LEAST_MEMORY = "least_memory"
"""The least memory at whatever work: one row at once."""

FASTEST = "fastest"
"""The least work, and the most rows at once, that the device has room for."""

WORK_FACTOR = 1.5
"""Fewer rows at once are tried before a way that multiplies more than this over the least."""

_BYTES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(|[KMGT]i?)B")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to compute a clipped sum.

    Attributes:
      engine: A name in `memarc.privacy.engines.ENGINES`.
      rows: Rows differentiated at once.
      remat: What the backward pass keeps of a layer, "none" or "layer" (`memarc.models.config`).
    """

    engine: str
    rows: int
    remat: str


def limit_of(fit: str) -> int | None:
    """The bytes that a user allows, such as "12GB" (10^9) or "12GiB" (2^30); None for a word.

    Raises:
      ValueError: If it is neither a word (`BALANCED`, `LEAST_MEMORY`, `FASTEST`) nor bytes.

    >>> limit_of("1.5KiB")
    1536
    """
    if fit in (BALANCED, LEAST_MEMORY, FASTEST):
        return None
    found = bytes_of(fit)
    if not found:
        raise ValueError(
            f"fit is {fit!r}; give {BALANCED!r}, {LEAST_MEMORY!r}, {FASTEST!r}, or bytes of one "
            "device such as '12GiB'."
        )
    return found


def bytes_of(text: str) -> int | None:
    """The number of bytes that "12GB" (10^9) or "12GiB" (2^30) says; None if it says none.

    >>> bytes_of("1.5KiB")
    1536
    """
    found = _BYTES.fullmatch(text)
    if not found:
        return None
    base = 1024 if found[2].endswith("i") else 1000
    return int(float(found[1]) * base ** _POWERS[found[2][:1]])


def choose(
    fit: str,
    engines: Sequence[str],
    remats: Sequence[str],
    *,
    rows: int,
    memory: int,
    work_of: Callable[[Way], int | None],
    bytes_of: Callable[[Way], int | None],
) -> Way:
    """Chooses among all engines, remats and rows at once.

    For the least memory, rows are taken one at a time, and the choice is the way of the smallest
    peak. Else ways that multiply at most `WORK_FACTOR` times the least come first, and of them
    those of the most rows at once, and of these that of the least work; the first that fits is the
    choice, and where none fits at all, ways of more work are tried alike.

    Args:
      fit: `LEAST_MEMORY`, `FASTEST`, or bytes (`limit_of`).
      engines: Names of engines.
      remats: What may be kept.
      rows: The most rows at once, 1 or more; fewer are halves of it.
      memory: Bytes of the device, the limit of `FASTEST`, and of everything else.
      work_of: The multiplications of a way, whatever its rows; None if the loss does not take the
        engine's taps.
      bytes_of: The peak of a way; None if the compiler refuses it for its size. It is slow.

    Returns:
      The way.

    Raises:
      ValueError: If no way fits, saying what the least takes.
    """
    ways = [Way(engine, rows, remat) for remat in remats for engine in engines]
    works = {way: work for way in ways if (work := work_of(way)) is not None}
    if not works:
        raise ValueError(f"None of the engines {tuple(engines)} takes this loss; name an engine.")
    ordered = sorted(works, key=works.__getitem__)
    limit = min(memory, limit_of(fit) or memory)
    if fit == LEAST_MEMORY:
        tried = [dataclasses.replace(way, rows=1) for way in ordered]
    else:
        most = WORK_FACTOR * works[ordered[0]]
        little = [way for way in ordered if works[way] <= most]
        tried = _by_rows(little, rows) + _by_rows(ordered[len(little) :], rows)
    seen: dict[Way, int] = {}
    for way in tried:
        if (peak := bytes_of(way)) is not None:
            seen[way] = peak
            if fit != LEAST_MEMORY and peak <= limit:
                return way
    if seen and min(seen.values()) <= limit:
        return min(seen, key=seen.__getitem__)
    least = f"the least takes {min(seen.values())} bytes" if seen else "the compiler refuses all"
    raise ValueError(
        f"fit is {fit!r}, and no engine, with rows one at a time, fits {limit} bytes of one "
        f"device: {least}. Give more, shorter rows, or frozen weights in fewer bits "
        "(model.storage_dtype)."
    )


def _by_rows(ways: Sequence[Way], rows: int) -> list[Way]:
    """All ways with the most rows first, then with half of them, down to one."""
    halves = [rows]
    while halves[-1] > 1:
        halves.append((halves[-1] + 1) // 2)
    return [dataclasses.replace(way, rows=count) for count in halves for way in ways]
