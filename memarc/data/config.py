"""The options of loading data, checked one by one, and whether they fit a task."""

import dataclasses
from collections.abc import Mapping

from memarc.batches import CLASSIFICATION, GENERATION, REGRESSION
from memarc.data import prompts, template, tokenize
from memarc.data.checks import check_choice, check_text, check_whole
from memarc.data.dataset import check_buckets
from memarc.data.own_config import OwnConfig, check_own_fit
from memarc.data.tasks import Task

SOURCES = ("files", "tfds", "tfds_download", "embedded", "memory", "own")
SPLITS = ("official", "paper")
UNITS = ("row", "input")

_READ_BY_SOURCE = {
    "root": ("files", "tfds", "tfds_download"),
    "train_file": ("files",),
    "drop_broken": ("files",),
    "train": ("own",),
    "dev": ("own",),
    "validation": ("own",),
    "validation_public": ("own",),
    "encoding": ("own",),
    "text": ("own",),
    "label": ("own",),
    "target": ("own",),
    "messages": ("memory", "own"),
    "labels": ("memory", "own"),
    "range": ("memory", "own"),
    "metrics": ("memory", "own"),
    "train_rows": ("embedded",),
    "dev_rows": ("embedded",),
    "rows_seed": ("embedded",),
}
"""Field -> the sources that read it; all sources read what is not named here."""

_READ_BY_KIND: Mapping[str, tuple[str, ...]] = {
    "split": (CLASSIFICATION,),
    "labels": (CLASSIFICATION,),
    "range": (REGRESSION,),
    "label": (CLASSIFICATION, REGRESSION),
    "target": (GENERATION,),
    "messages": (GENERATION,),
    "unit": (GENERATION,),
    "separator": (GENERATION,),
    "max_prompt": (GENERATION,),
    "end": (GENERATION,),
}
"""Field -> the kinds of task that read it; all kinds read what is not named here."""


@dataclasses.dataclass(frozen=True)
class DataConfig(OwnConfig):
    """Where rows come from and how they become arrays. Nothing in it is read off private rows.

    The fields of `OwnConfig` are fields of it too: they are of rows that are a user's own.

    Attributes:
      source: "files": the task's folder under ``root``; "tfds": a folder ``root`` that
        tensorflow-datasets prepared; "tfds_download": the same, downloaded to ``root``;
        "embedded": the task's grammar; "memory": lists that a Python program gives; "own": the
        files of ``train`` and ``dev``.
      tokenizer: A local folder, a hub name, or "word_level" (embedded tasks only). None stands
        for the tokenizer beside the model's weights; who knows these puts it in before loading.
      max_length: Cap on the tokens of a row, special ones included.
      buckets: Increasing lengths that rows are padded to; the last is ``max_length``. () stands
        for ``max_length`` alone.
      root: Folder of the source; None for "embedded" and "memory".
      train_file: Name of the train file of source "files"; None is the task's own.
      drop_broken: Whether lines of GLUE's files that a public rule calls broken are left out
        (`memarc.data.glue_tsv`), rather than refused.
      split: Which sets classification uses: "official", train and evaluation sets as they are, or
        "paper", train, validation and test sets that are cut from the train set, with the
        evaluation sets beside them.
      train_rows: Rows of an embedded train set.
      dev_rows: Rows of an embedded dev set; None is the grammar's own number.
      rows_seed: Seed of embedded rows.
      eval_rows: How many rows of each evaluation set are read, the first ones (in generation: how
        many inputs, with all their references); None reads all.
      unit: The unit of privacy where ``user`` names no people. "row": one row is one example;
        "input", in generation: one input with its references is.
      references_per_group: R, how many references of an input are read with unit "input"; None
        with "row".
      separator: Special token between prompt and target in generation, such as "[SEP]"; None is
        the token that ends a target.
      max_prompt: Cap on the tokens of a prompt in generation, special ones included; None is half
        of ``max_length``.
      begin: Special token that begins a row in generation, and elsewhere with a template, as
        LLaMA's "<s>"; None writes none.
      end: Special token that ends a target in generation; None is the tokenizer's own.
      template: Text around the columns of a row (`memarc.data.template`), such as
        "Review: {sentence} It was"; None leaves the layout to the tokenizer. In generation it
        makes the prompt of the columns ``text`` of a user's own files. In classification "<mask>"
        in it is the tokenizer's mask token, which pooling "mask" of the head reads; such a row
        begins and ends as the tokenizer writes it, where other templates begin with ``begin``.
    """

    source: str = "files"
    tokenizer: str | None = None
    max_length: int = 128
    buckets: tuple[int, ...] = ()
    root: str | None = None
    train_file: str | None = None
    drop_broken: bool = False
    split: str = "official"
    train_rows: int = 6000
    dev_rows: int | None = None
    rows_seed: int = 0
    eval_rows: int | None = None
    unit: str = "row"
    references_per_group: int | None = None
    separator: str | None = None
    max_prompt: int | None = None
    begin: str | None = None
    end: str | None = None
    template: str | None = None

    def __post_init__(self) -> None:
        """Checks every field by itself; ``check_fit`` checks which of them go together."""
        for name, choices in (("source", SOURCES), ("split", SPLITS), ("unit", UNITS)):
            check_choice(name, getattr(self, name), choices)
        for name, least in (("max_length", 1), ("train_rows", 1), ("rows_seed", 0)):
            check_whole(name, getattr(self, name), least)
        for name, least in (
            ("dev_rows", 1),
            ("eval_rows", 1),
            ("references_per_group", 1),
            ("max_prompt", 2),
        ):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        for name, wanted in (
            ("tokenizer", f"a folder, a hub name or {tokenize.WORD_LEVEL!r}"),
            ("root", "a folder"),
            ("train_file", "a name or leave it None"),
            ("separator", "a special token of the tokenizer or leave it None"),
            ("begin", "a special token of the tokenizer or leave it None"),
            ("end", "a special token of the tokenizer or leave it None"),
            ("template", "a text with columns in braces or leave it None"),
        ):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name), wanted)
        if self.buckets != ():
            check_buckets(self.buckets, self.max_length)
        self.check_own()

    @property
    def has_mask(self) -> bool:
        """Whether the template holds a mask token (which in generation is text)."""
        return self.template is not None and template.MASK in self.template

    @property
    def protects(self) -> str:
        """The unit of privacy: "row", "input", or "person" where a column names people."""
        return self.unit if self.user is None else "person"

    @property
    def rows_per_unit(self) -> int | None:
        """R, the most rows of a unit that has several; None where a unit is one row."""
        return self.references_per_group if self.user is None else self.rows_per_user

    @property
    def padded_lengths(self) -> tuple[int, ...]:
        """``buckets``, or the one that stands for ()."""
        return self.buckets or (self.max_length,)

    @property
    def prompt_cap(self) -> int:
        """``max_prompt``, or the number that stands for None."""
        return self.max_length // 2 if self.max_prompt is None else self.max_prompt


def check_fit(task: Task, config: DataConfig) -> None:
    """Checks that a config has what loading a task needs, and nothing that it would not read.

    Args:
      task: The task's record.
      config: The options.

    Raises:
      ValueError: If the task does not come from the source, a field is needed and not given, or
        one is given and not read.
    """
    if config.source not in task.sources:
        raise ValueError(
            f"Task {task.name} does not come from source {config.source!r}; choose "
            f"{' or '.join(task.sources)}."
        )
    _check_unread(task, config)
    if config.source in _READ_BY_SOURCE["root"] and config.root is None:
        raise ValueError(f"root is None; source {config.source!r} needs a folder.")
    _check_unit(config)
    is_files, has_template = config.source == "own", config.template is not None
    if task.format == "memory":
        check_own_fit(task, config, is_files=is_files, has_template=has_template)
    if config.tokenizer == tokenize.WORD_LEVEL and task.format != "grammar":
        raise ValueError(
            f"Tokenizer {tokenize.WORD_LEVEL!r} knows an embedded grammar's words only; task "
            f"{task.name} needs a published tokenizer (a word list of its rows would be private)."
        )
    if config.template is not None:
        template.parse(config.template, config.text if is_files else task.text_fields)
    if task.kind == GENERATION:
        prompts.check_caps(config.prompt_cap, config.max_length, config.begin is not None)


def _check_unit(config: DataConfig) -> None:
    """Raises ValueError unless one thing groups rows, and says how many rows a group has."""
    if config.user is not None and config.unit == "input":
        raise ValueError(
            f"user is {config.user!r} and unit 'input'; both would group rows, by person and by "
            "input. Leave unit 'row' to protect a person with all their inputs, or user None to "
            "protect one input."
        )
    if config.user is not None and config.split == "paper":
        raise ValueError(
            f"user is {config.user!r} and split 'paper', which cuts rows and would part those of "
            "one person; leave split 'official'."
        )
    if config.protects != "row" and config.rows_per_unit is None:
        name, whose = (
            ("references_per_group", "unit 'input'")
            if config.user is None
            else ("rows_per_user", f"user {config.user!r}")
        )
        raise ValueError(f"{name} is None; give a whole number from 1 up, as {whose} needs it.")


def _check_unread(task: Task, config: DataConfig) -> None:
    """Raises ValueError where a field differs from its default and would not be read."""
    unread = {
        name: f"source {config.source!r}"
        for name, sources in _READ_BY_SOURCE.items()
        if config.source not in sources
    }
    unread |= {
        name: f"task {task.name}, of {task.kind},"
        for name, kinds in _READ_BY_KIND.items()
        if task.kind not in kinds
    }
    if task.format != "tsv":
        unread["drop_broken"] = f"task {task.name}"
    if task.format != "memory":
        unread["user"] = f"task {task.name}, whose rows name no people,"
    if task.kind == GENERATION and config.source != "own":
        unread["template"] = f"source {config.source!r} in generation"
    if config.messages is not None:
        unread |= dict.fromkeys(("template", "begin", "separator"), "a chat template")
    if config.unit == "row":
        unread["references_per_group"] = "unit 'row'"
    if config.user is None:
        unread["rows_per_user"] = "user None"
    if task.kind != GENERATION and config.template is None:
        unread["begin"] = f"{task.kind} without a template"
    if task.kind != GENERATION and config.has_mask:
        unread["begin"] = f"a template with {template.MASK}"
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in unread and value != field.default:
            raise ValueError(
                f"{field.name} is {value!r}; {unread[field.name]} does not read it: leave it "
                f"{field.default!r}."
            )
