"""From a task's name and a config to tokenized train and evaluation sets.

Axes: N rows.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from memarc.batches import CLASSIFICATION, GENERATION
from memarc.data import sources, splits, units
from memarc.data.codec import Codec, Prompts, open_codec
from memarc.data.config import DataConfig, check_fit
from memarc.data.dataset import Dataset
from memarc.data.references import flatten, references
from memarc.data.rows import Rows
from memarc.data.tasks import Task, get_task


@dataclasses.dataclass(frozen=True, eq=False)
class EvalSet:
    """An evaluation set.

    Attributes:
      dataset: Every row (in generation: every reference) as an example of its own.
      prompts: What to write texts of, in generation; None in classification.
    """

    dataset: Dataset
    prompts: Prompts | None


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """A task ready for training and evaluation.

    Attributes:
      task: The task's record, with the labels that the config declares.
      privacy_unit: What is added or removed between neighbouring train sets.
      train: The private train set.
      rows_hash: A hash of the train rows' texts and labels in any order (`Rows.fingerprint`),
        before tokens and caps. Private.
      evals: Name of an evaluation set -> the set.
      codec: Makes such sets of other rows, and texts of tokens.
      buckets: Lengths that batches are padded to; public.
    """

    task: Task
    privacy_unit: str
    train: Dataset
    rows_hash: str
    evals: Mapping[str, EvalSet]
    codec: Codec
    buckets: tuple[int, ...]

    @property
    def num_examples(self) -> int:
        """Examples of the train set, each a unit; the privacy plan takes it as public."""
        return len(self.train)


def load(task_name: str, config: DataConfig) -> Splits:
    """Reads, splits and tokenizes a task.

    Args:
      task_name: Name of a task in ``tasks.TASKS``.
      config: The options.

    Returns:
      The datasets and what models must know of them.

    Raises:
      ValueError: If the task is unknown, config and task do not fit together, files are missing or
        bad, or the tokenizer cannot be read or lacks a special token.
    """
    task = task_of(task_name, config)
    check_fit(task, config)
    train, evals = sources.read(task, config)
    return from_rows(config, task, train, evals)


def from_rows(config: DataConfig, task: Task, train: Rows, evals: Mapping[str, Rows]) -> Splits:
    """Splits and tokenizes rows that are at hand.

    Args:
      config: The options.
      task: The task's record; see ``task_of``.
      train: The private train rows.
      evals: Name of an evaluation set -> its rows.

    Returns:
      The datasets and what models must know of them.

    Raises:
      ValueError: If config, task and rows do not fit together, or the tokenizer cannot be read or
        lacks a special token.
    """
    train, evals, rows_hash, members = _units(config, task, train, evals)
    codec = open_codec(task, config)
    return Splits(
        task=task,
        privacy_unit=privacy_unit(task, config),
        train=codec.dataset(train, members),
        rows_hash=rows_hash,
        evals={name: _eval_set(codec, rows, config.eval_rows) for name, rows in evals.items()},
        codec=codec,
        buckets=config.padded_lengths,
    )


def count(task_name: str, config: DataConfig) -> int:
    """Counts the units of a task's train set: its `Splits.num_examples`. Needs no tokenizer.

    Raises:
      ValueError: For what ``load`` refuses, but the tokenizer, which is not read.
    """
    task = task_of(task_name, config)
    check_fit(task, config)
    train, _, _, members = _units(config, task, *sources.read(task, config))
    return len(train) if members is None else len(members)


def _units(
    config: DataConfig, task: Task, train: Rows, evals: Mapping[str, Rows]
) -> tuple[Rows, Mapping[str, Rows], str, np.ndarray | None]:
    """Checks, splits and groups rows: train, evaluation sets, hash of train rows, members."""
    check_fit(task, config)
    for name, rows in (("train", train), *evals.items()):
        _check_rows(task, name, rows, len(train.columns))
    if (train.users is None) != (config.user is None):
        state = "name no people" if train.users is None else "name people"
        raise ValueError(f"The train rows {state}, and user is {config.user!r}; give both or none.")
    for name, rows in evals.items():
        if not len(rows):
            raise ValueError(
                f"The evaluation set {name!r} of task {task.name} has no row; get a whole one."
            )
    if config.split == "paper":
        train, evals = _cut_for_paper(train, evals)
    rows_hash, members = train.fingerprint(), None
    if config.rows_per_unit is not None:  # So the unit is an input or a person.
        group = units.by_input if config.protects == "input" else units.by_person
        train, members = group(train, config.rows_per_unit)
    return train, evals, rows_hash, members


def task_of(task_name: str, config: DataConfig) -> Task:
    """The record of a task, with what a config declares of a user's own rows.

    Raises:
      ValueError: If no task has that name.
    """
    task = get_task(task_name)
    declared = {name: getattr(config, name) for name in ("labels", "metrics")}
    if config.source == "own" and task.kind != GENERATION:
        declared["text_fields"] = config.text
    return dataclasses.replace(task, **{name: x for name, x in declared.items() if x})


def privacy_unit(task: Task, config: DataConfig) -> str:
    """What is added or removed between neighbouring train sets, in words."""
    return task.units[config.protects].format(rows=config.rows_per_unit)


def _cut_for_paper(train: Rows, evals: Mapping[str, Rows]) -> tuple[Rows, dict[str, Rows]]:
    """The paper's train set, and its two other sets before the given ones."""
    cut = splits.cut_paper_split(
        train,
        train_rows=splits.PAPER_TRAIN_ROWS,
        validation_rows=splits.PAPER_VALIDATION_ROWS,
        seed=splits.PAPER_SEED,
    )
    parts = {"validation": cut.validation, "test": cut.test}
    twice = sorted(parts.keys() & evals.keys())
    if twice:
        raise ValueError(f"split='paper' cuts evaluation sets {twice} itself; rename the given.")
    return cut.train, {**parts, **evals}


def _eval_set(codec: Codec, rows: Rows, count: int | None) -> EvalSet:
    """The first ``count`` rows, or inputs of generation with all their references."""
    if codec.kind != GENERATION:
        return EvalSet(codec.dataset(rows.take(np.arange(len(rows))[:count])), None)
    inputs, texts = references(rows)
    inputs, texts = inputs[:count], texts[:count]
    return EvalSet(codec.dataset(flatten(inputs, texts)), codec.prompts(inputs, texts))


def _check_rows(task: Task, name: str, rows: Rows, columns: int) -> None:
    """Raises ValueError unless a set's rows are those of a task and have ``columns`` columns."""
    fields = len(task.text_fields)
    least = 1 if task.format == "memory" and task.kind != GENERATION else fields
    if len(rows.columns) != columns or not least <= columns <= fields:
        raise ValueError(
            f"The rows of {name!r} have {len(rows.columns)} columns, those of 'train' {columns}; "
            f"task {task.name} has {', '.join(task.text_fields)}."
        )
    if (rows.labels is None) != (task.kind == GENERATION):
        state = "no labels" if rows.labels is None else "labels"
        raise ValueError(f"The rows of {name!r} have {state}; task {task.name} is {task.kind}.")
    if task.kind == CLASSIFICATION and rows.labels is not None and len(rows):
        low, high = int(rows.labels.min()), int(rows.labels.max())
        if low < 0 or high >= len(task.labels):
            raise ValueError(
                f"The labels of {name!r} run from {low} to {high}; give positions in the task's "
                f"labels {task.labels}, 0 to {len(task.labels) - 1}."
            )
