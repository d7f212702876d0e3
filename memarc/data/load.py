"""From a task's name and a config to tokenized train and evaluation sets."""

import dataclasses
from collections.abc import Mapping

from memarc.data import glue_tsv, reviews, splits, tfds_source, tokenize
from memarc.data.checks import check_choice, check_text, check_whole
from memarc.data.dataset import Dataset, check_buckets
from memarc.data.rows import Rows
from memarc.data.tasks import Task, get_task

SOURCES = ("glue", "tfds", "tfds_download", "embedded")
SPLITS = ("official", "paper")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where rows come from and how they become arrays. Nothing in it is read off private rows.

    Attributes:
      source: "glue": tab-separated files under ``root/<task>``; "tfds": the prepared folder
        ``root``; "tfds_download": downloads to ``root``; "embedded": the grammar of ``reviews``.
      split: "official": train and dev files; "paper": train, validation and test cut from the
        train file, with the official evaluation sets beside them.
      tokenizer: A local folder, a hub name, or "word_level" (embedded task only).
      max_length: Cap on the tokens of a row, special tokens included.
      buckets: Increasing lengths that rows are padded to; the last is ``max_length``.
      root: Folder of the source; None for "embedded".
      train_file: Name of the train file of source "glue"; None is the task's own.
      reviews_train_rows: Rows of the embedded train set.
      reviews_dev_rows: Rows of the embedded dev set.
      reviews_seed: Seed of the embedded rows.
    """

    source: str
    split: str
    tokenizer: str
    max_length: int
    buckets: tuple[int, ...]
    root: str | None = None
    train_file: str | None = None
    reviews_train_rows: int = 6000
    reviews_dev_rows: int = 1000
    reviews_seed: int = 0

    def __post_init__(self):
        """Checks every field."""
        check_choice("source", self.source, SOURCES)
        check_choice("split", self.split, SPLITS)
        check_text("tokenizer", self.tokenizer, f"a folder, a hub name or {tokenize.WORD_LEVEL!r}")
        for name, least in (
            ("max_length", 1),
            ("reviews_train_rows", 1),
            ("reviews_dev_rows", 1),
            ("reviews_seed", 0),
        ):
            check_whole(name, getattr(self, name), least)
        check_buckets(self.buckets, self.max_length)
        if self.source == "embedded" and self.root is not None:
            raise ValueError(f"root is {self.root!r}; source 'embedded' reads none: leave it None.")
        if self.source != "embedded" and not (isinstance(self.root, str) and self.root):
            raise ValueError(f"root is {self.root!r}; source {self.source!r} needs a folder.")
        if self.train_file is not None and (self.source != "glue" or not self.train_file):
            raise ValueError(
                f"train_file is {self.train_file!r}, source {self.source!r}; name a file with "
                "source 'glue' or leave it None."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """A task ready for training and evaluation.

    Attributes:
      task: The task's record.
      train: The private train set.
      evals: Name of an evaluation split -> its dataset.
      tokenizer: Vocabulary size and special ids; public.
      buckets: Lengths that batches are padded to; public.
    """

    task: Task
    train: Dataset
    evals: Mapping[str, Dataset]
    tokenizer: tokenize.TokenizerInfo
    buckets: tuple[int, ...]

    @property
    def num_labels(self) -> int:
        """Number of classes, from the task's public record."""
        return len(self.task.labels)

    @property
    def num_examples(self) -> int:
        """Rows of the train set; the privacy plan writes it down as a public constant."""
        return len(self.train)


def load(task_name: str, config: DataConfig) -> Splits:
    """Reads, splits and tokenizes a task.

    Args:
      task_name: Name of a task in ``tasks.TASKS``.
      config: See ``DataConfig``.

    Returns:
      The datasets and what models must know of them.

    Raises:
      ValueError: If the task is unknown, does not fit the source, or its files are missing or bad.
    """
    task = get_task(task_name)
    _check_fit(task, config)
    if config.tokenizer == tokenize.WORD_LEVEL:
        tokenizer = tokenize.word_level_tokenizer(reviews.vocabulary())
    else:
        tokenizer = tokenize.load_tokenizer(config.tokenizer)
    info = tokenize.describe(tokenizer, config.tokenizer)
    train, evals = _read(task, config)
    if config.split == "paper":
        cut = splits.cut_paper_split(
            train,
            train_rows=splits.PAPER_TRAIN_ROWS,
            validation_rows=splits.PAPER_VALIDATION_ROWS,
            seed=splits.PAPER_SEED,
        )
        train, evals = cut.train, {"validation": cut.validation, "test": cut.test, **evals}

    def to_dataset(rows: Rows) -> Dataset:
        return Dataset(
            encoded=tokenize.encode(tokenizer, rows.columns, max_length=config.max_length),
            labels=rows.labels,
            pad_id=info.pad_id,
            max_length=config.max_length,
        )

    return Splits(
        task=task,
        train=to_dataset(train),
        evals={name: to_dataset(rows) for name, rows in evals.items()},
        tokenizer=info,
        buckets=config.buckets,
    )


def _read(task, config) -> tuple[Rows, dict[str, Rows]]:
    """The labelled train rows and the official evaluation rows."""
    if config.source == "embedded":
        train = reviews.train_rows(config.reviews_train_rows, config.reviews_seed)
        return train, {"dev": reviews.dev_rows(config.reviews_dev_rows, config.reviews_seed)}
    if config.source == "glue":
        train = glue_tsv.read_split(task, config.root, config.train_file or task.train_file)
        files = task.eval_files.items()
        return train, {name: glue_tsv.read_split(task, config.root, file) for name, file in files}
    opener = tfds_source.open_prepared if config.source == "tfds" else tfds_source.download
    read = opener(task, config.root)
    return read("train"), {name: read(name) for name in task.eval_names}


def _check_fit(task, config):
    if task.is_embedded != (config.source == "embedded"):
        wanted = ("embedded",) if task.is_embedded else SOURCES[:-1]
        raise ValueError(
            f"Task {task.name} does not come from source {config.source!r}; choose "
            f"{' or '.join(wanted)}."
        )
    if config.tokenizer == tokenize.WORD_LEVEL and not task.is_embedded:
        raise ValueError(
            f"Tokenizer {tokenize.WORD_LEVEL!r} knows the embedded grammar's words only; task "
            f"{task.name} needs a published tokenizer (a word list of its rows would be private)."
        )
