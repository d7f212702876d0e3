"""The options of a user's own rows: files, columns, and what is declared of them in public."""

import codecs
import dataclasses
import math
from typing import Any

from memarc.batches import CLASSIFICATION, GENERATION, REGRESSION
from memarc.data.checks import check_text, check_whole
from memarc.data.tasks import METRICS_OF, OF_TWO_LABELS, Task


@dataclasses.dataclass(frozen=True)
class OwnConfig:
    """What a config says of rows that are a user's own: files (source "own") or lists ("memory").

    Attributes:
      train: Files of train rows (`memarc.data.own_files`), one after the other; source "own".
      dev: Files of rows to score on, which are not trained on; () for none.
      validation: Files of rows that are public, to score on while a run trains as well
        (``training.eval_every``) and at its end; () for none.
      validation_public: Your word that rows of ``validation`` are public: scores on them are exact.
      encoding: How text files are encoded, as Python names it.
      text: Columns that are read: one, or two for a pair of texts; any number with ``template``.
      label: Column of labels in classification, of numbers in regression.
      target: Column of the text that is wanted, in generation.
      messages: Column of conversations in generation, instead of ``text`` and ``target``: each a
        list of {"role": .., "content": ..} that ends with the assistant's turn. The tokenizer's own
        chat template writes them out, and only the assistant's turns are learned. With lists any
        name says that inputs are conversations.
      labels: All labels that rows may have in classification, declared in public.
      range: (low, high) of the numbers of regression, declared in public: what lies outside is
        refused.
      metrics: Names of the scores (`memarc.data.tasks.METRICS_OF`), the headline first; () takes
        the task's.
      user: Column that names the person whose each train row is, which makes a person the unit of
        privacy; None makes it what ``unit`` says. With lists any name says that they are there.
      rows_per_user: K, how many rows of a person are used: those whose public hashes are smallest
        (`memarc.data.units.by_person`). None without ``user``.
    """

    train: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    validation_public: bool = False
    encoding: str = "utf-8"
    text: tuple[str, ...] = ()
    label: str | None = None
    target: str | None = None
    messages: str | None = None
    labels: tuple[str, ...] = ()
    range: tuple[float, ...] = ()
    metrics: tuple[str, ...] = ()
    user: str | None = None
    rows_per_user: int | None = None

    def check_own(self) -> None:
        """Raises ValueError where a field is bad by itself."""
        for name in ("train", "dev", "validation", "text", "labels", "metrics"):
            _check_texts(name, getattr(self, name))
        for name in ("label", "target", "messages", "user"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name), "the name of a column or leave it None")
        if self.validation and not self.validation_public:
            raise ValueError(
                "validation_public is False; rows of validation are scored exactly, again and "
                "again: set it to True if they are public. Others are scored once, as dev."
            )
        try:
            codecs.lookup(self.encoding)
        except LookupError as error:
            raise ValueError(
                f"encoding is {self.encoding!r}, which Python does not know; give one such as "
                "'utf-8', 'utf-16' or 'cp1252'."
            ) from error
        if self.rows_per_user is not None:
            check_whole("rows_per_user", self.rows_per_user, 1)
        if self.range != ():
            _check_range(self.range)


def check_own_fit(task: Task, config: OwnConfig, *, is_files: bool, has_template: bool) -> None:
    """Checks that all is declared that a task of a user's own rows needs, and scores fit it.

    Args:
      task: The task's record, with the labels and scores that the config declares.
      config: The options.
      is_files: Whether rows come from files, whose columns must be named.
      has_template: Whether a template holds the columns together.

    Raises:
      ValueError: If something is missing, or a score is of another kind of task.
    """
    if task.kind == CLASSIFICATION and len(config.labels) < 2:
        raise ValueError(
            f"labels is {config.labels!r}; declare all labels that rows may have, at least two: "
            "they are public, and never read off the rows."
        )
    if task.kind == REGRESSION and not config.range:
        raise ValueError(
            "range is (); declare the least and the greatest number that rows may have: they are "
            "public, and never read off the rows."
        )
    check_metrics(task)
    if not is_files:
        return
    if not config.train:
        raise ValueError("train is (); name the files of the train rows.")
    _check_columns(task, config, has_template)


def check_metrics(task: Task) -> None:
    """Raises ValueError where a score of a task is not one of its kind, or of two labels."""
    known = METRICS_OF[task.kind]
    unknown = [name for name in task.metrics if name not in known]
    if unknown or not task.metrics:
        raise ValueError(f"metrics has {unknown}; those of {task.kind} are {', '.join(known)}.")
    of_two = [name for name in task.metrics if name in OF_TWO_LABELS]
    if of_two and len(task.labels) != 2:
        raise ValueError(
            f"metrics has {of_two}, of two labels; there are {len(task.labels)}. Choose accuracy, "
            "macro_f1 or matthews."
        )


def _check_columns(task: Task, config: OwnConfig, has_template: bool) -> None:
    """Raises ValueError unless the columns of a task are named, each once, and no others."""
    wanted = {"text": True, "label": task.kind != GENERATION, "target": task.kind == GENERATION}
    if config.messages is not None:
        wanted = dict.fromkeys(wanted, False)
    for name, is_wanted in wanted.items():
        if bool(getattr(config, name)) != is_wanted:
            advice = "name a column" if is_wanted else "leave it out"
            with_messages = " with messages" if config.messages is not None else ""
            raise ValueError(
                f"{name} is {getattr(config, name)!r}; task {task.name}{with_messages} is one of "
                f"{task.kind}: {advice}."
            )
    most = 1 if task.kind == GENERATION else 2
    if len(config.text) > most and not has_template:
        raise ValueError(
            f"text is {config.text!r}; {task.kind} reads at most {most} without a template: set "
            "template to a text with these columns in braces."
        )


def _check_texts(name: str, value: Any) -> None:
    """Raises ValueError unless a value is a tuple of different texts."""
    is_tuple = isinstance(value, tuple)
    if not is_tuple or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"{name} is {value!r}; give a tuple of texts.")
    if len(set(value)) < len(value):
        raise ValueError(f"{name} is {value!r}; give each {name.removesuffix('s')} once.")


def _check_range(value: Any) -> None:
    """Raises ValueError unless a value is two finite numbers, the lower first."""
    is_pair = isinstance(value, tuple) and len(value) == 2
    if not is_pair or not all(math.isfinite(x) for x in value) or value[0] >= value[1]:
        raise ValueError(f"range is {value!r}; give two finite numbers, the lower first.")
