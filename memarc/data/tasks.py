"""Each classification task as a record: fields, labels, files, scores; ``get_task(name)``.

Labels and their order are fixed here, in public, and never read off the rows.
"""

import dataclasses
from collections.abc import Mapping

PRIVACY_UNIT = "one row"


@dataclasses.dataclass(frozen=True)
class TfdsNames:
    """How tensorflow-datasets spells a GLUE task.

    Attributes:
      builder: Name of the builder with its configuration, e.g. "glue/sst2".
      text_fields: Its names for the task's text fields, in the same order.
      labels: Its class names, in the order of the task's labels.
      eval_splits: Name of an evaluation split -> its name for it.
    """

    builder: str
    text_fields: tuple[str, ...]
    labels: tuple[str, ...]
    eval_splits: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be classified, and where it is written.

    Attributes:
      name: Also the folder's name under the root of the ``glue`` source.
      text_fields: One or two column names.
      label_field: Column name of the label.
      labels: All labels as the files spell them (integers where they are integers).
      metrics: Names of the scores; the first is the headline.
      train_file: Default name of the labelled train file; "" for an embedded task.
      eval_files: Name of an evaluation split -> file name.
      archive: Where the GLUE archive is; "" for an embedded task.
      tfds: How tensorflow-datasets spells the task; None for an embedded task.
      privacy_unit: What is added or removed between neighbouring data sets. One row of the train
        file gives exactly one example: rows are neither packed, windowed nor augmented.
    """

    name: str
    text_fields: tuple[str, ...]
    label_field: str
    labels: tuple[int, ...] | tuple[str, ...]
    metrics: tuple[str, ...]
    train_file: str
    eval_files: Mapping[str, str]
    archive: str
    tfds: TfdsNames | None
    privacy_unit: str = PRIVACY_UNIT

    @property
    def eval_names(self) -> tuple[str, ...]:
        """Names of the official evaluation splits."""
        return tuple(self.eval_files)

    @property
    def is_embedded(self) -> bool:
        """Whether the rows are made by a grammar and not read from files."""
        return not self.train_file


_GLUE = "https://dl.fbaipublicfiles.com/glue/data"

TASKS = (
    Task(
        name="sst2",
        text_fields=("sentence",),
        label_field="label",
        labels=(0, 1),
        metrics=("accuracy",),
        train_file="train.tsv",
        eval_files={"dev": "dev.tsv"},
        archive=f"{_GLUE}/SST-2.zip",
        tfds=TfdsNames(
            builder="glue/sst2",
            text_fields=("sentence",),
            labels=("negative", "positive"),
            eval_splits={"dev": "validation"},
        ),
    ),
    Task(
        name="qnli",
        text_fields=("question", "sentence"),
        label_field="label",
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
        train_file="train.tsv",
        eval_files={"dev": "dev.tsv"},
        archive=f"{_GLUE}/QNLIv2.zip",
        tfds=TfdsNames(
            builder="glue/qnli",
            text_fields=("question", "sentence"),
            labels=("entailment", "not_entailment"),
            eval_splits={"dev": "validation"},
        ),
    ),
    Task(
        name="qqp",
        text_fields=("question1", "question2"),
        label_field="is_duplicate",
        labels=(0, 1),
        metrics=("accuracy", "f1"),
        train_file="train.tsv",
        eval_files={"dev": "dev.tsv"},
        archive=f"{_GLUE}/QQP.zip",
        tfds=TfdsNames(
            builder="glue/qqp",
            text_fields=("question1", "question2"),
            labels=("not_duplicate", "duplicate"),
            eval_splits={"dev": "validation"},
        ),
    ),
    Task(
        name="mnli",
        text_fields=("sentence1", "sentence2"),
        label_field="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        train_file="train.tsv",
        eval_files={"matched": "dev_matched.tsv", "mismatched": "dev_mismatched.tsv"},
        archive=f"{_GLUE}/MNLI.zip",
        tfds=TfdsNames(
            builder="glue/mnli",
            text_fields=("premise", "hypothesis"),
            labels=("entailment", "neutral", "contradiction"),
            eval_splits={"matched": "validation_matched", "mismatched": "validation_mismatched"},
        ),
    ),
    Task(
        name="reviews",
        text_fields=("sentence",),
        label_field="label",
        labels=(0, 1),
        metrics=("accuracy",),
        train_file="",
        eval_files={"dev": ""},
        archive="",
        tfds=None,
    ),
)


def get_task(name: str) -> Task:
    """Finds a task by name.

    Args:
      name: One of the names in ``TASKS``.

    Returns:
      The task's record.

    Raises:
      ValueError: If no task has that name.
    """
    for task in TASKS:
        if task.name == name:
            return task
    choices = ", ".join(task.name for task in TASKS)
    raise ValueError(f"Unknown task {name!r}; choose one of {choices}.")
