"""From the plain values of a config file, or of a record, to checked settings."""

import csv
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from memarc.data.tasks import get_task
from memarc.models.methods import METHODS, default_options
from memarc.runs.settings import OTHERS, SECTIONS, Settings

_OF_FILES = ("runs", "more", "repeats")
"""Fields of a config file that are none of a run: what single runs change, further configs, and how
often each run is made."""


def parse(config: Mapping[str, Any], only: Sequence[str] | None = None) -> list[Settings]:
    """Checks a config and expands its ``runs``, each a name and the fields in which it differs.

    Args:
      config: Plain values as configs/common.py lays them out. A config without ``runs`` is one
        run, named like its method. The runs of the configs in ``more`` follow; one of these
        without ``runs`` is named as it is there. All are made ``repeats`` times: the first under
        its name, so that one that was made before counts, the others as NAME-r2, NAME-r3 and so on.
        Each draws its own entropy, or has the next seed where there is one.
      only: Names of the runs that are wanted, each with its repeats; None means all.

    Returns:
      One `Settings` per run, in the config's order.

    Raises:
      ValueError: For an unknown, missing or bad field, or an unknown run, naming the choices.
    """
    found = _runs(config, None)
    for name, other in (config.get("more") or {}).items():
        others = _runs(other, name)
        if other["repeats"] != 1:
            raise ValueError(
                f"config.more.{name}.repeats is {other['repeats']}; give config.repeats, which is "
                "of all runs, and leave this 1."
            )
        twice = sorted(found.keys() & others.keys())
        if twice:
            raise ValueError(f"config.more.{name} repeats the names of runs {twice}; rename them.")
        found |= others
    repeated = _repeated(found, config["repeats"])
    known = {x for names in repeated.values() for x in names} | found.keys()
    strangers = sorted(set(only or ()) - known)
    if strangers:
        raise ValueError(f"The config has no run {strangers}; its runs are {list(found)}.")
    return [
        settings(plain, name)
        for run, repeats in repeated.items()
        for name, plain in repeats.items()
        if only is None or run in only or name in only
    ]


def settings(plain: Mapping[str, Any], name: str = "") -> Settings:
    """The settings of one run.

    Args:
      plain: A value for each field of `Settings` but the name; sections are mappings. What
        `Settings.plain` gives is such a mapping, JSON's lists and strings for tuples and infinite
        numbers included.
      name: Name of the run.

    Returns:
      The checked settings.

    Raises:
      ValueError: For an unknown or missing field, or a value of another type.
    """
    sections = {
        key: _fill(cls, plain[key], key) for key, cls in SECTIONS[_kind(plain["task"])].items()
    }
    others = {key: plain[key] for key in OTHERS}
    options = {key: _of_json(value) for key, value in plain["options"].items()}
    return Settings(name=name, **{**others, "options": options}, **sections)


def _kind(task: Any) -> str:
    """The kind of a task by its name."""
    return get_task(task).kind


def _runs(config: Mapping[str, Any], alone: str | None) -> dict[str, dict[str, Any]]:
    """Each run's name and plain values; ``alone`` is the name if there are no others."""
    fields = {*OTHERS, *_OF_FILES, *SECTIONS[_kind(config.get("task"))]}
    unknown, missing = sorted(set(config) - fields), sorted(fields - set(config))
    if unknown or missing:
        raise ValueError(
            f"The config has unknown fields {unknown} and lacks {missing}"
            f"{_nearest(unknown, sorted(fields))}; its fields are {sorted(fields)}."
        )
    variants = config["runs"] or {alone or config["method"]: {}}
    found = {}
    for name, changes in variants.items():
        plain = _changed(config, changes, f"config.runs.{name}", ())
        plain = {key: value for key, value in plain.items() if key not in _OF_FILES}
        found[name] = {**plain, "options": _options_of(plain)}
    return found


def _repeated(
    runs: Mapping[str, Mapping[str, Any]], repeats: Any
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Each run's name -> name of each repeat -> its plain values."""
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1:
        raise ValueError(f"config.repeats is {repeats!r}; give a whole number from 1 up.")
    found = {}
    for name, plain in runs.items():
        found[name] = {name: plain}
        for place in range(1, repeats):
            seed = plain["seed"]
            again = {**plain, "seed": seed + place if isinstance(seed, int) else seed}
            found[name][f"{name}-r{place + 1}"] = again
        twice = sorted((found[name].keys() & runs.keys()) - {name})
        if twice:
            raise ValueError(
                f"Runs {twice} have names of repeats of {name!r}; rename them, or make it once."
            )
    return found


def _changed(
    base: Mapping[str, Any], changes: Mapping[str, Any], place: str, path: tuple[str, ...]
) -> dict[str, Any]:
    """A nested mapping with some fields changed, all of which it must have."""
    result = dict(base)
    for key, value in changes.items():
        where = ".".join((*path, key))
        if key not in base:
            raise ValueError(
                f"{place} does not fit the config: there is no field {where}"
                f"{_nearest([key], sorted(base))}; the fields there are {sorted(base)}."
            )
        if isinstance(base[key], Mapping) != isinstance(value, Mapping):
            raise ValueError(f"{place} does not fit the config: {where} is {value!r}.")
        nested = isinstance(value, Mapping)
        result[key] = _changed(base[key], value, place, (*path, key)) if nested else value
    return result


def _options_of(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of the run's method; a config file holds those of every method."""
    method = plain["method"]
    if method in METHODS and method not in plain["options"]:
        raise ValueError(f"config.options lacks {method!r}; give it {default_options(method)}.")
    return plain["options"].get(method, {})


def _fill(cls: type, values: Mapping[str, Any], section: str) -> Any:
    """A dataclass from a section of its fields: none unknown, none missing that has no default."""
    fields, hints = dataclasses.fields(cls), typing.get_type_hints(cls)
    names = [field.name for field in fields]
    required = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    unknown = sorted(set(values) - set(names))
    missing = sorted(set(required) - set(values))
    if unknown or missing:
        raise ValueError(
            f"config.{section} has unknown fields {unknown} and lacks {missing}"
            f"{_nearest(unknown, names)}; its fields are {names}."
        )
    given = {name: _of_text(_of_json(value), hints[name]) for name, value in values.items()}
    for name, value in given.items():
        wanted = hints[name]
        if not _fits(value, wanted):
            raise ValueError(
                f"config.{section}.{name} is {values[name]!r}; give "
                f"{getattr(wanted, '__name__', wanted)}."
            )
    return cls(**given)


def _nearest(unknown: Sequence[str], fields: Sequence[str]) -> str:
    """A question after the field that is meant, if one is spelled nearly so."""
    found = [name for key in unknown for name in difflib.get_close_matches(key, fields, 1)]
    return f" (did you mean {', '.join(found)}?)" if found else ""


def _of_text(value: Any, wanted: Any) -> Any:
    """The parts of a text where a field holds several, as command lines spell them: "a,b".

    A part that holds a comma is quoted as in CSV; "" has no parts. What is no line of CSV stays a
    text, which no such field takes.
    """
    if typing.get_origin(wanted) is not tuple or not isinstance(value, str):
        return value
    try:
        parts = next(csv.reader([value], skipinitialspace=True), [])
    except csv.Error:
        return value
    if typing.get_args(wanted)[0] is not float:
        return tuple(parts)
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        return value


def _of_json(value: Any) -> Any:
    """Undoes `memarc.report.records.encode` on one value: lists, and floats that JSON lacks."""
    if isinstance(value, list):
        return tuple(_of_json(item) for item in value)
    return math.inf if value == "inf" else value


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of a field's type; a whole number is a float too, a bool is neither."""
    if typing.get_origin(wanted) in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in typing.get_args(wanted))
    if typing.get_origin(wanted) is tuple:
        return isinstance(value, tuple) and all(_fits(x, typing.get_args(wanted)[0]) for x in value)
    if wanted is float:
        wanted = (int, float)
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
