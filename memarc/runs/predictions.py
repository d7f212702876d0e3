"""What a tuned model says of the rows of a file, as records, and their files.

Axes: N rows.
"""

import contextlib
import csv
import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from memarc import paths
from memarc.batches import CLASSIFICATION, GENERATION
from memarc.data import own_files, own_rows
from memarc.runs.tuned import Tuned


def inputs_of(
    tuned: Tuned, place: str, *, columns: Sequence[str] = (), encoding: str | None = None
) -> tuple[list[str], ...]:
    """Reads what a model is to be given, from a file like those that it was tuned on.

    Args:
      tuned: The model.
      place: A file, a folder or "-" (`memarc.data.own_files`).
      columns: Columns of texts; () takes those of the run's config, or the task's own names.
      encoding: Of text files; None takes the config's.

    Returns:
      The columns of texts, or the one of prompts.

    Raises:
      ValueError: If the file is missing or broken.
    """
    settings = tuned.parts.settings
    task, data = settings.record_of_task, settings.data
    is_one = task.kind == GENERATION or data.source == "memory"
    named = tuple(columns) or data.text or task.text_fields[: 1 if is_one else None]
    asked = dataclasses.replace(data, text=named, encoding=encoding or data.encoding)
    return own_rows.inputs(task, asked, place)


def predict(tuned: Tuned, columns: tuple[list[str], ...]) -> list[dict[str, Any]]:
    """What a model says of each row: a label with probabilities, a number, or a text.

    Args:
      tuned: The model.
      columns: From `inputs_of`, N rows.

    Returns:
      N records: {"label", "probabilities"}, {"value"} or {"text"}. Where the network left its
      range, which is no prediction, values are None.
    """
    if not columns[0]:
        return []
    texts: Any = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
    kind = tuned.parts.settings.kind
    if kind == GENERATION:
        return [{"text": text} for text in tuned.write(texts)]
    if kind == CLASSIFICATION:
        return [_choice(tuned.labels, odds) for odds in tuned.probabilities(texts)]
    return [{"value": None if math.isnan(x) else float(x)} for x in tuned.numbers(texts)]


def undefined(records: Sequence[dict[str, Any]]) -> list[int]:
    """Numbers of the rows, from 1, of which there is no prediction."""
    return [i for i, record in enumerate(records, start=1) if None in record.values()]


def write(records: Sequence[dict[str, Any]], place: str) -> None:
    """Writes records: CSV where a name ends in ".csv" or ".tsv", else JSON Lines.

    A probability has a column of its own in CSV, named like its label. A file appears whole or not
    at all.

    Args:
      records: From `predict`.
      place: A file, or "-" for standard output.

    Raises:
      OSError: If the file cannot be written.
    """
    with _opened(place) as file:
        ending = Path(place).suffix
        if ending not in (".csv", ".tsv"):
            file.writelines(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
            return
        rows = [_flat(record) for record in records]
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(file, names, delimiter="," if ending == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)


def _choice(labels: Sequence[int | str], odds: np.ndarray) -> dict[str, Any]:
    """The record of one row of classification."""
    if np.isnan(odds).any():
        return {"label": None, "probabilities": None}
    named = {str(label): float(share) for label, share in zip(labels, odds, strict=True)}
    return {"label": labels[int(odds.argmax())], "probabilities": named}


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose probabilities are fields of their own."""
    rest = {name: x for name, x in record.items() if name != "probabilities"}
    odds = record.get("probabilities") or {}
    return {**rest, **{f"probability of {name}": x for name, x in odds.items()}}


@contextlib.contextmanager
def _opened(place: str) -> Iterator[TextIO]:
    """Standard output, or a file that takes its name when all is written."""
    if place == own_files.STREAM:
        yield sys.stdout
        return
    path = paths.place(place)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
