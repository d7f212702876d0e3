"""Runs by the fields of their configs: what tells them apart, and those that are repeats of one.

Runs are repeats of each other if nothing but their randomness differs. A field that one of two
records does not state, as it was made before there was the field, does not tell them apart.
"""

import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from memarc.report.records import Record

EPSILON, ACCOUNTANT = "privacy.epsilon", "privacy.accountant"

_RANDOMNESS = ("seed",)
_HOUSEKEEPING = ("ledger.", "training.log_", "training.checkpoint_", "training.keep_")
_SHOWN = ("task", "method", EPSILON, ACCOUNTANT)
"""Fields that have columns of their own in usual tables."""


def facts(record: Record) -> dict[str, str]:
    """The fields of a record's config as cells, such as "privacy.epsilon" -> "8".

    Task, method and accountant are the record's own, which older configs do not state.

    >>> _flat({"options": {"layers": [1, 3]}, "privacy": {"epsilon": 8.0, "delta": 1e-05}})
    {'options.layers': '1, 3', 'privacy.epsilon': '8', 'privacy.delta': '1e-05'}
    """
    own = {"task": record.task, "method": record.method, ACCOUNTANT: record.accountant}
    return {**_flat(record.config), **own}


def differing(items: Sequence[Record]) -> list[str]:
    """The fields, beside randomness and housekeeping, in which any two of some runs differ."""
    found: dict[str, set[str]] = {}
    for record in items:
        for name, value in facts(record).items():
            found.setdefault(name, set()).add(value)
    ignored = (*_RANDOMNESS, *_HOUSEKEEPING)
    return [name for name, values in found.items() if len(values) > 1 and not _is(name, ignored)]


def telling(items: Sequence[Record]) -> list[str]:
    """The fields that tell apart runs of one task, method and epsilon.

    Of the methods' options these are all in which such runs differ; of other fields, the weights
    first, those that part runs which the fields before them do not.
    """
    base = ("task", "method", EPSILON)
    apart = itertools.chain.from_iterable(map(differing, _by(items, base).values()))
    names = [name for name in dict.fromkeys(apart) if name not in _SHOWN]
    found = [name for name in names if name.startswith("options.")]
    for name in sorted(names, key="model.weights".__ne__):
        if len(_by(items, (*base, *found, name))) > len(_by(items, (*base, *found))):
            found.append(name)
    return found


def grouped(
    items: Sequence[Record], fields: Sequence[str]
) -> dict[tuple[str, ...], tuple[Record, ...]]:
    """Groups runs by fields; those of a group must be repeats of each other.

    Args:
      items: Records.
      fields: Names of `facts`.

    Returns:
      Values of the fields ("" where a run has none) -> the runs, in the order of ``items``.

    Raises:
      ValueError: If no run has a field, or runs of a group differ in another one, or are the same
        run twice.
    """
    known = dict.fromkeys(name for record in items for name in facts(record))
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            question = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"No run has the field {name!r}{question}; choose from {list(known)}.")
    found = _by(items, fields)
    for members in found.values():
        _check_repeats(members, fields)
    return found


def _check_repeats(members: Sequence[Record], fields: Sequence[str]) -> None:
    """Raises ValueError unless runs differ in their randomness, and in nothing else."""
    names = [record.name for record in members]
    apart = differing(members)
    if apart:
        raise ValueError(
            f"Runs {names} are alike in {list(fields)} and no repeats of each other: they differ "
            f"in {apart}. Group by these too, or give records of one kind."
        )
    for one, other in itertools.combinations(members, 2):
        seed = one.config.get("seed")
        if one == other or (seed is not None and seed == other.config.get("seed")):
            same = "records" if one == other else f"seeds, {seed},"
            raise ValueError(
                f"Runs {one.name} and {other.name} have equal {same} so they are one run and no "
                "repeats; give it once."
            )


def _by(items: Sequence[Record], fields: Sequence[str]) -> dict[tuple[str, ...], Any]:
    """Runs by the values of fields."""
    found: dict[tuple[str, ...], tuple[Record, ...]] = {}
    for record in items:
        stated = facts(record)
        key = tuple(stated.get(name, "") for name in fields)
        found[key] = (*found.get(key, ()), record)
    return found


def _flat(values: Mapping[str, Any], place: str = "") -> dict[str, str]:
    """Dotted name of a field -> its value as a cell."""
    found = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{place}{name}.")
        else:
            found[f"{place}{name}"] = _cell(value)
    return found


def _cell(value: Any) -> str:
    """A value as a cell; whole numbers read alike whatever their type."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return str(value).removesuffix(".0")


def _is(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a field is one of those named, or of a section of them."""
    return any(name == x or (x.endswith((".", "_")) and name.startswith(x)) for x in prefixes)
