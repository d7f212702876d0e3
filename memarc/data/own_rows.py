"""Makes rows of the columns of a user's own files: texts with labels, numbers or texts.

What may be known of all rows is declared in the config: labels and ranges are never read off them.
Messages name file, line and column, and quote nothing that a row holds.

Axes: N rows.
"""

import dataclasses
import itertools
import json
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from memarc.batches import CLASSIFICATION, GENERATION
from memarc.data import chat, own_files, template
from memarc.data.config import DataConfig
from memarc.data.own_files import Table
from memarc.data.rows import Rows
from memarc.data.tasks import Task

VALIDATION = "validation"
"""The evaluation set whose rows are public, so that it may be scored while a run trains."""


def read(task: Task, config: DataConfig) -> tuple[Rows, Mapping[str, Rows]]:
    """Reads the train rows and the evaluation sets that a config names.

    Args:
      task: The task's record, with the labels and columns of the config.
      config: See ``config.check_fit``.

    Returns:
      The train rows, and name of an evaluation set -> its rows.

    Raises:
      ValueError: If a file is missing or broken, or a row does not fit what is declared.
    """
    train = _joined([_rows(task, config, place, config.user) for place in config.train])
    sets = {"dev": config.dev, VALIDATION: config.validation}
    return train, {
        name: _joined([_rows(task, config, place, None) for place in places])
        for name, places in sets.items()
        if places
    }


def inputs(task: Task, config: DataConfig, place: str) -> tuple[list[str], ...]:
    """Reads what a model is given, without what is wanted of it.

    Args:
      task: The task's record.
      config: Names the columns.
      place: A file (`own_files.read`).

    Returns:
      The columns of texts; in generation the one column of prompts.

    Raises:
      ValueError: If the file is missing or broken.
    """
    if config.messages is not None:
        table = own_files.read(place, (config.messages,), config.encoding)
        talks = _talks(table, config.messages, is_whole=False)
        asked = [talk[:-1] if chat.ends_with_assistant(talk) else talk for talk in talks]
        return ([json.dumps(talk) for talk in asked],)
    return _inputs(task, config, own_files.read(place, config.text, config.encoding))


def shares(values: Sequence[float], bounds: tuple[float, ...]) -> np.ndarray:
    """Numbers as shares of a declared range, float32[N], from 0 at its low end to 1."""
    low, high = bounds
    return ((np.asarray(values, np.float64) - low) / (high - low)).astype(np.float32)


def is_outside(value: Any, bounds: tuple[float, ...]) -> bool:
    """Whether something is no number of a declared range."""
    number = _number(value)
    return number is None or not bounds[0] <= number <= bounds[1]


def person(value: Any) -> str | None:
    """The name of a person as text, without spaces around it; None where a value names nobody."""
    if isinstance(value, float) and value.is_integer():  # As some files hold whole numbers.
        value = int(value)
    is_name = isinstance(value, str | numbers.Integral) and not isinstance(value, bool)
    return (str(value).strip() or None) if is_name else None


def _rows(task: Task, config: DataConfig, place: str, user: str | None) -> Rows:
    """The rows of one file, with their people where ``user`` is a column that names them."""
    answer = config.target if task.kind == GENERATION else config.label
    named = (*config.text, answer, config.messages, user)  # As ``check_fit`` has seen.
    wanted = dict.fromkeys(name for name in named if name is not None)
    table = own_files.read(place, tuple(wanted), config.encoding)
    rows = _contents(task, config, table, answer)
    return rows if user is None else dataclasses.replace(rows, users=_people(table, user))


def _people(table: Table, column: str) -> list[str]:
    """The people of a column, in the order of the rows."""
    found = [person(cell) for cell in table.columns[column]]
    table.refuse(column, [name is None for name in found], "there is no person")
    return [name for name in found if name is not None]


def _contents(task: Task, config: DataConfig, table: Table, answer: str | None) -> Rows:
    """What the rows of a file hold; ``answer`` is the column of what is wanted."""
    if config.messages is not None:
        talks = _talks(table, config.messages, is_whole=True)
        prompts = [json.dumps(talk[:-1]) for talk in talks]
        return Rows((prompts, [talk[-1]["content"] for talk in talks]), None)
    assert answer is not None  # As ``check_fit`` has seen.
    columns, cells = _inputs(task, config, table), table.columns[answer]
    if task.kind == GENERATION:
        is_bad = [not isinstance(x, str) or not x.strip() for x in cells]
        table.refuse(answer, is_bad, "there is no text")
        return Rows((*columns, list(cells)), None)
    if task.kind == CLASSIFICATION:
        return Rows(columns, _labels(task, table, answer))
    is_bad = [is_outside(x, config.range) for x in cells]
    table.refuse(
        answer, is_bad, f"there is no number from {config.range[0]:g} to {config.range[1]:g}"
    )
    return Rows(columns, shares([float(x) for x in cells], config.range))


def _inputs(task: Task, config: DataConfig, table: Table) -> tuple[list[str], ...]:
    """The columns of texts; in generation one, of prompts that a template makes of them."""
    columns = []
    for name in config.text:
        table.refuse(
            name, [not isinstance(x, str) for x in table.columns[name]], "there is no text"
        )
        columns.append(list(table.columns[name]))
    if task.kind != GENERATION or config.template is None:
        return tuple(columns)
    pieces = template.parse(config.template, config.text)
    return ([template.fill(pieces, texts) for texts in zip(*columns, strict=True)],)


def _labels(task: Task, table: Table, column: str) -> np.ndarray:
    """Positions of labels among the declared ones, int32[N]."""
    places = {str(label): place for place, label in enumerate(task.labels)}
    found = [places.get(_spelled(cell)) for cell in table.columns[column]]
    table.refuse(
        column,
        [place is None for place in found],
        f"the label is none of the declared {list(places)}",
    )
    return np.asarray(found, np.int32)


def _spelled(cell: Any) -> str:
    """A label as a config spells it; a whole number that a file holds as a float has no point."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def _talks(table: Table, column: str, *, is_whole: bool) -> list[list[chat.Message]]:
    """The conversations of a column; whole ones end with the assistant's turn."""
    found = [chat.conversation(cell) for cell in table.columns[column]]
    wanted: Callable[[Any], bool] = chat.ends_with_assistant if is_whole else bool
    table.refuse(
        column,
        [talk is None or not wanted(talk) for talk in found],
        'there is no list of {"role": .., "content": ..}'
        + (" that ends with a turn of the assistant" if is_whole else ""),
    )
    return [talk for talk in found if talk is not None]


def _joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several files, one after the other."""
    columns = zip(*(part.columns for part in parts), strict=True)
    labels = [part.labels for part in parts if part.labels is not None]
    users = [part.users for part in parts if part.users is not None]
    return Rows(
        tuple([text for column in same for text in column] for same in columns),
        np.concatenate(labels) if labels else None,
        list(itertools.chain.from_iterable(users)) if users else None,
    )
