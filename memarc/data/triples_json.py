"""Reads DART's JSON layout, sets of triples and texts that say them; WebNLG in the same layout.

A file is a list of ``{"tripleset": [[subject, predicate, object], ...], "annotations":
[{"source": ..., "text": ...}, ...]}``; other fields are ignored. A tripleset becomes the input
"s : p : o | s : p : o". Underscores of subjects and objects become spaces, in DART too: they stand
for spaces in WebNLG's names. Predicates stay as they are. Records are numbered from 1, and
messages quote nothing of them: they may be private.
"""

import json
import pathlib
from typing import Any

from memarc.data import text_files
from memarc.data.rows import Rows


def read_file(path: pathlib.Path) -> Rows:
    """Reads one file, plain or gzip-compressed.

    Args:
      path: From ``text_files.find``.

    Returns:
      One row (input, target) per text, in the file's order; two records of the same triples have
      equal inputs.

    Raises:
      ValueError: If the file is damaged or no such list, or a record lacks a field, a text or a
        part of a triple; named by the file and the record.
    """
    with text_files.open_text(path, newline="\n") as file:
        try:
            records = json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {error.lineno}, column {error.colno}: this is not JSON; repair it "
                "or fetch it again."
            ) from None
        except text_files.DAMAGE as error:
            raise ValueError(text_files.damage(path, error, 1)) from None
    if not isinstance(records, list):
        raise ValueError(
            f"{path} holds a {type(records).__name__}; give a list of records with the fields "
            "tripleset and annotations."
        )
    inputs, targets = [], []
    for number, record in enumerate(records, start=1):
        place = f"{path}, record {number}"
        text = _linearise(place, _items(place, record, "tripleset"))
        for which, annotation in enumerate(_items(place, record, "annotations"), start=1):
            inputs.append(text)
            targets.append(_text(f"{place}: annotation {which}", annotation))
    return Rows(columns=(inputs, targets), labels=None)


def _items(place: str, record: Any, field: str) -> list[Any]:
    """The list in a record's field; ``place`` is for messages."""
    items = record.get(field) if isinstance(record, dict) else None
    if not isinstance(items, list) or not items:
        raise ValueError(f"{place}: no {field}; a record needs a list with at least one entry.")
    return items


def _linearise(place: str, triples: list[Any]) -> str:
    """The input of a model that a set of triples becomes."""
    lines = []
    for number, triple in enumerate(triples, start=1):
        is_list = isinstance(triple, list)
        if not is_list or len(triple) != 3 or not all(isinstance(part, str) for part in triple):
            raise ValueError(
                f"{place}: triple {number} is not a list of three texts; repair or remove it."
            )
        subject, predicate, value = triple
        lines.append(f"{subject.replace('_', ' ')} : {predicate} : {value.replace('_', ' ')}")
    return " | ".join(lines)


def _text(place: str, annotation: Any) -> str:
    """The text of an annotation; ``place`` is for messages."""
    text = annotation.get("text") if isinstance(annotation, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{place} has no text; fill it in or remove it.")
    return text.strip()
