"""Each task as a record: kind, columns, labels, files, scores, privacy units; ``get_task(name)``.

Labels and their order are fixed here, in public, and never read off the rows.
"""

import dataclasses
from collections.abc import Mapping

from memarc.batches import CLASSIFICATION, GENERATION, REGRESSION

METRICS = ("bleu", "rouge_l", "nist", "meteor_exact_stem", "cider")
"""Scores of texts; E2E has one of its own before them."""

METRICS_OF: Mapping[str, tuple[str, ...]] = {
    CLASSIFICATION: ("accuracy", "macro_f1", "f1", "auc", "matthews"),
    REGRESSION: ("pearson", "spearman", "rmse"),
    GENERATION: (*METRICS, "bleu_e2e", "perplexity"),
}
"""Kind of task -> the scores that it may have."""

OF_TWO_LABELS = ("f1", "auc")
"""Scores that are of two labels, of which the second is the one that is sought."""

ROW_UNIT: Mapping[str, str] = {"row": "one row"}
"""Units of classification and regression; see ``Task.units``."""

PERSON_UNIT: Mapping[str, str] = {
    "person": "one person with all rows of theirs, of which up to {rows} are used"
}
"""A further unit where rows are a user's own and say whose they are."""

TEXT_UNITS: Mapping[str, str] = {
    "row": "one reference row",
    "input": "one meaning representation with its first {rows} references",
}
"""Units of generation; see ``Task.units``.

A row is one reference text beside its input, so an input that has several references is protected
less by "row" than by "input".
"""


@dataclasses.dataclass(frozen=True)
class TfdsNames:
    """How tensorflow-datasets spells a GLUE task.

    Attributes:
      builder: Name of the builder with its configuration, e.g. "glue/sst2".
      text_fields: The library's names for the task's text fields, in the same order.
      labels: The library's class names, in the order of the task's labels.
      eval_splits: Name of an evaluation set -> its name for it.
    """

    builder: str
    text_fields: tuple[str, ...]
    labels: tuple[str, ...]
    eval_splits: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be classified or written, and where the rows are.

    Attributes:
      name: The task's name.
      kind: One of ``memarc.batches.KINDS``.
      text_fields: One or two names of columns; the input and the target in generation. Rows of
        format "memory" may lack the second column in classification and regression.
      metrics: Names of the scores; the first is the headline.
      units: Unit of a config -> what is added or removed between neighbouring data sets. A unit
        gives exactly one example: rows are neither packed, windowed nor augmented. "{rows}" stands
        for the most rows that one has.
      format: Where rows come from: "tsv" (``glue_tsv``), "csv" (``e2e_csv``), "triples"
        (``triples_json``), "grammar" (``grammars``) or "memory" (a user's own: lists of a
        Python program, or files whose columns a config names).
      label_field: Column name of the label; "" where files hold no labels.
      labels: All labels as the files spell them (integers where they are integers).
      folder: The task's folder under the root of the files; "" where there are no files.
      train_file: Default name of the train file.
      eval_files: Name of an evaluation set -> file name.
      origin: Where to get the files, as the end of a sentence; "" where ``archive`` says it.
      archive: Address of the zip file that holds the files; "" where ``origin`` says it.
      tfds: How tensorflow-datasets spells the task; None where it has no such task.
    """

    name: str
    kind: str
    text_fields: tuple[str, ...]
    metrics: tuple[str, ...]
    units: Mapping[str, str]
    format: str
    label_field: str = ""
    labels: tuple[int, ...] | tuple[str, ...] = ()
    folder: str = ""
    train_file: str = ""
    eval_files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    origin: str = ""
    archive: str = ""
    tfds: TfdsNames | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of a config that the task's rows can come from."""
        if self.format == "grammar":
            return ("embedded",)
        if self.format == "memory":
            return ("memory", "own")
        return ("files", "tfds", "tfds_download") if self.tfds else ("files",)


_GLUE = "https://dl.fbaipublicfiles.com/glue/data"
_YES_OR_NO = ("entailment", "not_entailment")
_E2E_FIELDS = ("mr", "ref")
_TRIPLES_FIELDS = ("tripleset", "text")

TASKS = (
    Task(
        name="sst2",
        kind=CLASSIFICATION,
        text_fields=("sentence",),
        metrics=("accuracy",),
        units=ROW_UNIT,
        format="tsv",
        label_field="label",
        labels=(0, 1),
        folder="sst2",
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
        kind=CLASSIFICATION,
        text_fields=("question", "sentence"),
        metrics=("accuracy",),
        units=ROW_UNIT,
        format="tsv",
        label_field="label",
        labels=_YES_OR_NO,
        folder="qnli",
        train_file="train.tsv",
        eval_files={"dev": "dev.tsv"},
        archive=f"{_GLUE}/QNLIv2.zip",
        tfds=TfdsNames(
            builder="glue/qnli",
            text_fields=("question", "sentence"),
            labels=_YES_OR_NO,
            eval_splits={"dev": "validation"},
        ),
    ),
    Task(
        name="qqp",
        kind=CLASSIFICATION,
        text_fields=("question1", "question2"),
        metrics=("accuracy", "f1"),
        units=ROW_UNIT,
        format="tsv",
        label_field="is_duplicate",
        labels=(0, 1),
        folder="qqp",
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
        kind=CLASSIFICATION,
        text_fields=("sentence1", "sentence2"),
        metrics=("accuracy",),
        units=ROW_UNIT,
        format="tsv",
        label_field="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        folder="mnli",
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
        kind=CLASSIFICATION,
        text_fields=("sentence",),
        metrics=("accuracy",),
        units=ROW_UNIT,
        format="grammar",
        labels=(0, 1),
    ),
    Task(
        name="classification",
        kind=CLASSIFICATION,
        text_fields=("text", "second_text"),
        metrics=("accuracy",),
        units={**ROW_UNIT, **PERSON_UNIT},
        format="memory",
    ),
    Task(
        name="regression",
        kind=REGRESSION,
        text_fields=("text", "second_text"),
        metrics=METRICS_OF[REGRESSION],
        units={**ROW_UNIT, **PERSON_UNIT},
        format="memory",
    ),
    Task(
        name="e2e",
        kind=GENERATION,
        text_fields=_E2E_FIELDS,
        metrics=("bleu_e2e", *METRICS),
        units=TEXT_UNITS,
        format="csv",
        folder="e2e",
        train_file="trainset.csv",
        eval_files={"dev": "devset.csv", "test": "testset_w_refs.csv"},
        origin="github.com/tuetschek/e2e-dataset",
    ),
    Task(
        name="dart",
        kind=GENERATION,
        text_fields=_TRIPLES_FIELDS,
        metrics=METRICS,
        units=TEXT_UNITS,
        format="triples",
        folder="dart",
        train_file="dart-v1.1.1-full-train.json",
        eval_files={"dev": "dart-v1.1.1-full-dev.json", "test": "dart-v1.1.1-full-test.json"},
        origin="the repository github.com/Yale-LILY/dart, folder data/v1.1.1. WebNLG's files are "
        "another task, webnlg, and do not stand for DART's train set",
    ),
    Task(
        name="webnlg",
        kind=GENERATION,
        text_fields=_TRIPLES_FIELDS,
        metrics=METRICS,
        units=TEXT_UNITS,
        format="triples",
        folder="webnlg2017",
        train_file="train.json",
        eval_files={"dev": "dev.json"},
        origin="the WebNLG 2017 challenge (github.com/XiangLi1999/PrefixTuning holds its XML "
        "files in data/webnlg_challenge_2017), merged in path order into DART's JSON layout",
    ),
    Task(
        name="restaurants",
        kind=GENERATION,
        text_fields=_E2E_FIELDS,
        metrics=METRICS,
        units=TEXT_UNITS,
        format="grammar",
    ),
    Task(
        name="generation",
        kind=GENERATION,
        text_fields=("input", "target"),
        metrics=METRICS,
        units={
            **TEXT_UNITS,
            "input": "one input with its first {rows} references",
            **PERSON_UNIT,
        },
        format="memory",
    ),
)


def get_task(name: str) -> Task:
    """Finds a task by name.

    Args:
      name: One of the names in ``TASKS``.

    Returns:
      The task's record.

    Raises:
      ValueError: If no task has that name; the message names all of them.
    """
    for task in TASKS:
        if task.name == name:
            return task
    choices = ", ".join(task.name for task in TASKS)
    raise ValueError(f"Unknown task {name!r}; choose one of {choices}.")
