"""The fields of a config, as --help lists them: types, defaults, and what docstrings say of them.

What a field means is written once, in the section "Attributes" of its dataclass.
"""

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from memarc.data.tasks import get_task
from memarc.models.methods import METHODS
from memarc.runs.sections import AuditConfig
from memarc.runs.settings import OTHERS, SECTIONS, Settings

_WIDTH = 100
_AUDIT = "audit"
"""The section that a config has if it is one of an audit."""

_ATTRIBUTE = re.compile(r"  (\w+): (.*)")


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a dataclass.

    Attributes:
      name: Its name.
      type: Its type as one writes it.
      default: Its default as one writes it; "" where it must be given.
      line: What it means, in at most a sentence; "" where the docstring does not say.
    """

    name: str
    type: str
    default: str
    line: str


_REPEATS = Field("repeats", "int", "1", "How often each run is made: each is a release of its own.")
"""The field of a config file that is none of a run and can be set on command lines."""


def of(cls: type) -> list[Field]:
    """The fields of a dataclass, in their order; a method's backbone is none of a config."""
    hints, lines = typing.get_type_hints(cls), _attributes(cls)
    found = []
    for field in dataclasses.fields(cls):
        if cls in METHODS.values() and field.name == "config":
            continue
        hint = hints[field.name]
        required = field.default is dataclasses.MISSING
        default = "" if required else repr(field.default)
        spelled = hint.__name__ if isinstance(hint, type) else str(hint)
        found.append(Field(field.name, spelled, default, lines.get(field.name, "")))
    return found


def sections() -> Iterator[tuple[str, str, type]]:
    """Yields place in a config, kinds of configs that have it so ("" for all), and dataclass."""
    kinds: dict[tuple[str, type], list[str]] = {}
    for kind, classes in SECTIONS.items():
        for name, cls in classes.items():
            kinds.setdefault((name, cls), []).append(kind)
    for (name, cls), having in kinds.items():
        yield name, "" if len(having) == len(SECTIONS) else ", ".join(having), cls
    for name, cls in METHODS.items():
        yield f"options.{name}", "", cls
    yield _AUDIT, "configs of audits", AuditConfig


def text(config: Mapping[str, Any] | None) -> str:
    """Lists all fields of configs, or those of one with its values.

    Args:
      config: Plain values; None lists the fields of all kinds of tasks with their defaults.
    """
    lines = ["Fields of a config, each changed by --config.FIELD=VALUE:"]
    tops = {field.name: field for field in of(Settings)}
    lines += [_told("config", tops[name], (config or {}).get(name)) for name in OTHERS[:-1]]
    lines += [_told("config", _REPEATS, (config or {}).get(_REPEATS.name))]
    kind = get_task(config["task"]).kind if config else None
    for place, having, cls in sections():
        is_there = place in (config or {}) if place == _AUDIT else kind in having.split(", ")
        if kind and having and not is_there:
            continue
        values = _at(config or {}, place)
        only = f" (of {having})" if having and not kind else ""
        fields = of(cls)
        lines += [f"\n  {place}{only}" + ("" if fields else ": none")]
        lines += [_told(f"config.{place}", field, values.get(field.name)) for field in fields]
    return "\n".join(lines)


def _told(place: str, field: Field, value: Any) -> str:
    """One field as help shows it."""
    default = field.default if value is None else repr(value)
    given = f" = {default}" if default else ", must be given"
    first = f"    --{place}.{field.name} ({field.type}{given})"
    return f"{first}\n        {field.line}"


def _at(config: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """The values of a section, or none."""
    for key in place.split("."):
        config = config.get(key, {})
    return config


def _attributes(cls: type) -> dict[str, str]:
    """What docstrings say of a class's fields, those of its bases included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        name, is_inside = "", False
        for line in inspect.cleandoc(base.__dict__.get("__doc__") or "").splitlines():
            is_inside = line == "Attributes:" or (is_inside and (not line or line[0] == " "))
            match = _ATTRIBUTE.fullmatch(line)
            if is_inside and match:
                name = match[1]
                found[name] = match[2]
            elif is_inside and name and line.strip():
                found[name] += f" {line.strip()}"
    return {name: _sentence(told) for name, told in found.items()}


def _sentence(told: str) -> str:
    """The first sentence of a text, cut to a line."""
    first = re.split(r"(?<=\.) ", told.replace("``", "'"), maxsplit=1)[0]
    return textwrap.shorten(first, _WIDTH - 8, placeholder=" ..")
