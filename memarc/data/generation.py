"""From a generation task's name and a config to tokenized train and evaluation sets.

Axes: G inputs, P tokens of a padded prompt.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from memarc.data import (
    e2e_csv,
    pair_rows,
    prompts,
    restaurants,
    text_files,
    tokenize,
    triples_json,
)
from memarc.data.checks import check_choice, check_text, check_whole
from memarc.data.dataset import check_buckets
from memarc.data.generation_tasks import PRIVACY_UNITS, GenerationTask, get_generation_task
from memarc.data.pair_dataset import PairDataset
from memarc.data.pair_rows import PairRows

SOURCES = ("files", "embedded")
UNITS = tuple(PRIVACY_UNITS)


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """Where pairs come from and how they become arrays. Nothing in it is read off private rows.

    Attributes:
      source: "files": the task's folder under ``root``; "embedded": the grammar of
        ``restaurants``.
      tokenizer: A local folder, a hub name, or "word_level" (embedded task only).
      separator: Special token between prompt and target, such as "[SEP]" or "<|endoftext|>".
      max_prompt: P, cap on the tokens of a prompt, special ones included.
      max_length: Cap on the tokens of a row.
      buckets: Increasing lengths that rows are padded to; the last is ``max_length``.
      unit: "row": one reference is one example; "input": one meaning representation is.
      references_per_group: R, how many references of a meaning representation are read with unit
        "input"; None with "row".
      begin: Special token that begins a row, as LLaMA's "<s>"; None writes none.
      end: Special token that ends a target; None is the tokenizer's own.
      root: Folder of source "files".
      train_file: Name of the train file of source "files"; None is the task's own.
      train_rows: Rows of the embedded train set.
      dev_rows: Rows of the embedded dev set, three for each meaning representation.
      rows_seed: Seed of the embedded rows.
      eval_rows: How many inputs of each evaluation set are read, the first ones; None is all.
    """

    source: str
    tokenizer: str
    separator: str
    max_prompt: int
    max_length: int
    buckets: tuple[int, ...]
    unit: str = "row"
    references_per_group: int | None = None
    begin: str | None = None
    end: str | None = None
    root: str | None = None
    train_file: str | None = None
    train_rows: int = 6000
    dev_rows: int = 600
    rows_seed: int = 0
    eval_rows: int | None = None

    def __post_init__(self):
        """Checks every field."""
        check_choice("source", self.source, SOURCES)
        check_choice("unit", self.unit, UNITS)
        check_text("tokenizer", self.tokenizer, f"a folder, a hub name or {tokenize.WORD_LEVEL!r}")
        check_text("separator", self.separator, "a special token of the tokenizer")
        for name, least in (
            ("max_prompt", 2),
            ("max_length", 3),
            ("train_rows", 1),
            ("dev_rows", 1),
            ("rows_seed", 0),
        ):
            check_whole(name, getattr(self, name), least)
        prompts.check_caps(self.max_prompt, self.max_length, self.begin is not None)
        check_buckets(self.buckets, self.max_length)
        if self.source == "files":
            check_text("root", self.root, "the folder that holds the tasks' folders")
        if self.unit == "input":
            check_whole("references_per_group", self.references_per_group, 1)
        if self.eval_rows is not None:
            check_whole("eval_rows", self.eval_rows, 1)
        for name in ("begin", "end", "train_file"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name), "a name or leave it None")
        self._check_unread()

    def _check_unread(self):
        unread = ["root", "train_file"] if self.source == "embedded" else []
        unread += ["references_per_group"] if self.unit == "row" else []
        for name in unread:
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; source {self.source!r} with unit "
                    f"{self.unit!r} does not read it: leave it None."
                )


@dataclasses.dataclass(frozen=True, eq=False)
class EvalSet:
    """An evaluation set: what to write texts of, and what texts are wanted.

    Attributes:
      inputs: G distinct inputs in the file's order.
      references: The texts of each input.
      prompts: int32[G, P], the inputs' tokens with the separator, padded on the right.
      prompt_lengths: int32[G].
      is_cut: bool[G], whether the cap on prompts cut them.
      dataset: Every reference as an example of its own, for perplexity.
    """

    inputs: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    prompts: np.ndarray
    prompt_lengths: np.ndarray
    is_cut: np.ndarray
    dataset: PairDataset


@dataclasses.dataclass(frozen=True, eq=False)
class GenerationSplits:
    """A generation task ready for training and evaluation.

    Attributes:
      task: The task's record.
      privacy_unit: What is added or removed between neighbouring train sets.
      train: The private train set.
      evals: Name of an evaluation set -> the set.
      tokenizer: Vocabulary size and special ids; public. Short rows are filled up with the end.
      codec: The tokenizer itself.
      separator_id: Id of the token between prompt and target.
      end_id: Id of the token that ends a target.
      buckets: Lengths that batches are padded to; public.
    """

    task: GenerationTask
    privacy_unit: str
    train: PairDataset
    evals: Mapping[str, EvalSet]
    tokenizer: tokenize.TokenizerInfo
    codec: tokenize.Tokenizer
    separator_id: int
    end_id: int
    buckets: tuple[int, ...]

    @property
    def num_examples(self) -> int:
        """Examples of the train set; the privacy plan writes it down as a public constant."""
        return len(self.train)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text that the ids after a prompt spell, up to the first end."""
        return prompts.decode(self.codec, ids, self.end_id)


def load(task_name: str, config: GenerationConfig) -> GenerationSplits:
    """Reads, groups and tokenizes a task.

    Args:
      task_name: Name of a task in ``generation_tasks.GENERATION_TASKS``.
      config: See ``GenerationConfig``.

    Returns:
      The datasets and what models must know of them.

    Raises:
      ValueError: If the task is unknown, does not fit the source, its files are missing or bad, or
        the tokenizer lacks a special token.
    """
    task = get_generation_task(task_name)
    _check_fit(task, config)
    codec = _tokenizer(config)
    layout = _layout(codec, config)
    length, end_id = config.max_length, layout.end_id

    def to_dataset(rows: PairRows, members: np.ndarray) -> PairDataset:
        encoded = prompts.encode_pairs(codec, rows.inputs, rows.targets, layout, max_length=length)
        return PairDataset(encoded, members, pad_id=end_id, max_length=length)

    def to_eval(rows: PairRows) -> EvalSet:
        inputs, texts = pair_rows.references(rows)
        if not inputs:
            raise ValueError(f"An evaluation file of task {task.name} has no row; get a whole one.")
        inputs, texts = inputs[: config.eval_rows], texts[: config.eval_rows]
        rows = pair_rows.flatten(inputs, texts)
        return EvalSet(
            inputs,
            texts,
            *prompts.encode_prompts(codec, inputs, layout),
            to_dataset(rows, np.arange(len(rows))),
        )

    train, evals = _read(task, config)
    return GenerationSplits(
        task=task,
        privacy_unit=privacy_unit(task_name, config),
        train=to_dataset(*_examples(train, config)),
        evals={name: to_eval(rows) for name, rows in evals.items()},
        tokenizer=tokenize.describe(codec, config.tokenizer, pad_id=end_id),
        codec=codec,
        separator_id=layout.separator_id,
        end_id=end_id,
        buckets=config.buckets,
    )


def privacy_unit(task_name: str, config: GenerationConfig) -> str:
    """What is added or removed between neighbouring train sets."""
    units = get_generation_task(task_name).privacy_units
    return units[config.unit].format(references=config.references_per_group)


def _check_fit(task, config):
    if task.is_embedded != (config.source == "embedded"):
        wanted = "embedded" if task.is_embedded else "files"
        raise ValueError(
            f"Task {task.name} does not come from source {config.source!r}; choose {wanted}."
        )
    if config.tokenizer == tokenize.WORD_LEVEL and not task.is_embedded:
        raise ValueError(
            f"Tokenizer {tokenize.WORD_LEVEL!r} knows the embedded grammar's words only; task "
            f"{task.name} needs a published tokenizer (a word list of its rows would be private)."
        )


def _tokenizer(config):
    if config.tokenizer == tokenize.WORD_LEVEL:
        return restaurants.tokenizer()
    return tokenize.load_tokenizer(config.tokenizer, needs_pad=False)


def _layout(codec, config) -> prompts.Layout:
    begin = config.begin
    return prompts.Layout(
        max_prompt=config.max_prompt,
        begin_id=None if begin is None else prompts.special_id(codec, begin),
        separator_id=prompts.special_id(codec, config.separator),
        end_id=_end_id(codec, config),
    )


def _end_id(codec, config):
    end = codec.eos_token if config.end is None else config.end
    if end is None:
        raise ValueError(
            f"end is None, and tokenizer {config.tokenizer!r} names no token that ends a text; "
            f"choose one of {', '.join(codec.all_special_tokens)}."
        )
    return prompts.special_id(codec, end)


def _read(task, config) -> tuple[PairRows, dict[str, PairRows]]:
    """The train rows and the rows of each evaluation set."""
    if task.is_embedded:
        train = restaurants.train_rows(config.train_rows, config.rows_seed)
        return train, {"dev": restaurants.dev_rows(config.dev_rows, config.rows_seed)}
    folder = pathlib.Path(config.root).expanduser() / task.folder
    advice = f"Set root and train_file to where the files are, or get them from {task.origin}."
    read_file = {"csv": e2e_csv.read_file, "triples": triples_json.read_file}[task.format]

    def read(file_name: str) -> PairRows:
        return read_file(text_files.find(folder, file_name, task=task.name, advice=advice))

    train = read(config.train_file or task.train_file)
    return train, {name: read(file_name) for name, file_name in task.eval_files.items()}


def _examples(rows, config) -> tuple[PairRows, np.ndarray]:
    """The train rows that are read, and the rows of each example among them."""
    if config.unit == "input":
        return pair_rows.group(rows, config.references_per_group)
    return rows, np.arange(len(rows))
