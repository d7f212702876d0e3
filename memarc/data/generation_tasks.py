"""Each text generation task as a record: files, format, scores; ``get_generation_task(name)``."""

import dataclasses
from collections.abc import Mapping

METRICS = ("bleu", "rouge_l", "nist", "meteor_exact_stem", "cider")

PRIVACY_UNITS = {
    "row": "one reference row",
    "input": "one meaning representation with its first {references} references",
}
"""Unit of a config -> what is added or removed between neighbouring data sets.

A row is one reference text beside its meaning representation, so a meaning representation that
has several references is protected less by "row" than by "input". A unit gives exactly one
example: rows are neither packed, windowed nor augmented.
"""


@dataclasses.dataclass(frozen=True)
class GenerationTask:
    """What texts are to be written of, and where the examples are.

    Attributes:
      name: The task's name.
      folder: Its folder under the root of source "files"; "" for an embedded task.
      format: "csv" (see ``e2e_csv``), "triples" (see ``triples_json``) or "embedded".
      train_file: Default name of the train file; "" for an embedded task.
      eval_files: Name of an evaluation set -> file name.
      origin: Where to get the files, as the end of a sentence; "" for an embedded task.
      metrics: Names of the scores; the first is the headline.
      privacy_units: Unit of a config -> its statement; see ``PRIVACY_UNITS``.
    """

    name: str
    folder: str
    format: str
    train_file: str
    eval_files: Mapping[str, str]
    origin: str
    metrics: tuple[str, ...] = METRICS
    privacy_units: Mapping[str, str] = dataclasses.field(default_factory=PRIVACY_UNITS.copy)

    @property
    def is_embedded(self) -> bool:
        """Whether the rows are made by a grammar and not read from files."""
        return self.format == "embedded"


GENERATION_TASKS = (
    GenerationTask(
        name="e2e",
        folder="e2e",
        format="csv",
        train_file="trainset.csv",
        eval_files={"dev": "devset.csv", "test": "testset_w_refs.csv"},
        origin="github.com/tuetschek/e2e-dataset",
        metrics=("bleu_e2e", *METRICS),
    ),
    GenerationTask(
        name="dart",
        folder="dart",
        format="triples",
        train_file="dart-v1.1.1-full-train.json",
        eval_files={
            "dev": "dart-v1.1.1-full-dev.json",
            "test": "dart-v1.1.1-full-test.json",
        },
        origin="the repository github.com/Yale-LILY/dart, folder data/v1.1.1. WebNLG's files are "
        "another task, webnlg, and do not stand for DART's train set",
    ),
    GenerationTask(
        name="webnlg",
        folder="webnlg2017",
        format="triples",
        train_file="train.json",
        eval_files={"dev": "dev.json"},
        origin="the WebNLG 2017 challenge (github.com/XiangLi1999/PrefixTuning holds its XML "
        "files in data/webnlg_challenge_2017), merged in path order into DART's JSON layout",
    ),
    GenerationTask(
        name="restaurants",
        folder="",
        format="embedded",
        train_file="",
        eval_files={"dev": ""},
        origin="",
    ),
)


def get_generation_task(name: str) -> GenerationTask:
    """Finds a generation task by name.

    Args:
      name: One of the names in ``GENERATION_TASKS``.

    Returns:
      The task's record.

    Raises:
      ValueError: If no generation task has that name.
    """
    for task in GENERATION_TASKS:
        if task.name == name:
            return task
    choices = ", ".join(task.name for task in GENERATION_TASKS)
    raise ValueError(f"Unknown generation task {name!r}; choose one of {choices}.")
