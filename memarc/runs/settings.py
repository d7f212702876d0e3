"""From a config file to checked settings, one per run; the library never sees a ConfigDict."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from memarc.data.generation import GenerationConfig
from memarc.data.generation_tasks import GENERATION_TASKS
from memarc.data.load import DataConfig
from memarc.data.tasks import TASKS
from memarc.evaluation.decoding import DecodingConfig
from memarc.models.language import LanguageConfig
from memarc.privacy.ledger import Budget
from memarc.privacy.mechanism import PrivacyConfig
from memarc.report.records import encode
from memarc.training.optimizer import OptimizerConfig
from memarc.training.sharding import MeshConfig


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """Where the backbone comes from.

    Attributes:
      weights: A local folder or a hub name.
      dtype: Compute dtype, "float32" or "bfloat16".
      storage_dtype: Dtype in which frozen weights are held.
      remat: "none", or "layer" to keep only each layer's input for the backward pass.
      attention_block: Queries that attend at once; 0 means all.
    """

    weights: str
    dtype: str
    storage_dtype: str
    remat: str
    attention_block: int


@dataclasses.dataclass(frozen=True)
class HeadChoice:
    """How states become the head's input: "first" or "mean"."""

    pooling: str


@dataclasses.dataclass(frozen=True)
class LedgerConfig:
    """Where spending is written down, and what runs that share a ledger may spend together.

    Attributes:
      folder: None keeps a ledger for the run alone, in its own folder, with the run's budget.
      epsilon: Budget of all runs in ``folder``; None takes that with which it was begun.
      delta: Of that budget; None with ``epsilon``.
    """

    folder: str | None
    epsilon: float | None
    delta: float | None

    @property
    def budget(self) -> Budget | None:
        """Of a shared ledger; None if it is to be there already."""
        if self.epsilon is None or self.delta is None:
            return None
        return Budget(self.epsilon, self.delta)

    def __post_init__(self):
        """Checks which fields go together."""
        if (self.epsilon is None) != (self.delta is None):
            raise ValueError(
                f"ledger.epsilon is {self.epsilon} and ledger.delta {self.delta}; give both, or "
                "none."
            )
        if self.folder is None and self.epsilon is not None:
            raise ValueError(
                "ledger.epsilon is the budget of runs that share a ledger; give ledger.folder too."
            )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Length and housekeeping of a run.

    Attributes:
      epochs: Expected passes over the train rows; steps = epochs * N / batch, at least 1.
      eval_batch_size: Rows per batch of predictions.
      log_every: Steps between lines of the log.
      checkpoint_every: Steps between checkpoints.
      keep_checkpoints: Latest checkpoints kept while the run lasts.
      tensorboard: Also write TensorBoard event files (extra "tensorboard").
    """

    epochs: float
    eval_batch_size: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int
    tensorboard: bool

    def __post_init__(self):
        """Checks what the training code does not."""
        if not 0 < self.epochs < float("inf"):
            raise ValueError(f"training.epochs is {self.epochs}; give a finite number above 0.")
        if self.eval_batch_size < 1:
            raise ValueError(
                f"training.eval_batch_size is {self.eval_batch_size}; give at least 1."
            )


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run, checked field by field.

    Attributes:
      name: Of the run within its config.
      task: Name of the task.
      method: Name of the tuning method.
      seed: None draws entropy from the operating system; a number makes the run reproducible and
        hence not private against who knows it.
      data: Of a classification or a generation task.
      head: Likewise.
      decoding: How texts are written; None in classification.
      options: The method's options.
      plain: The whole config of the run as JSON values, for the record.
    """

    name: str
    task: str
    method: str
    seed: int | None
    data: DataConfig | GenerationConfig
    model: ModelSource
    head: HeadChoice | LanguageConfig
    decoding: DecodingConfig | None
    options: Mapping[str, Any]
    privacy: PrivacyConfig
    ledger: LedgerConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    mesh: MeshConfig
    plain: dict[str, Any]

    @property
    def of_training(self) -> dict[str, Any]:
        """The part of ``plain`` that decides what is trained; how it is scored may change later."""
        training = {k: x for k, x in self.plain["training"].items() if k != "eval_batch_size"}
        rest = {key: value for key, value in self.plain.items() if key != "decoding"}
        return {**rest, "training": training}


_SHARED = {
    "model": ModelSource,
    "privacy": PrivacyConfig,
    "ledger": LedgerConfig,
    "optimizer": OptimizerConfig,
    "training": TrainingConfig,
    "mesh": MeshConfig,
}
_CLASSIFICATION = {"data": DataConfig, "head": HeadChoice, **_SHARED}
_GENERATION = {
    "data": GenerationConfig,
    "head": LanguageConfig,
    "decoding": DecodingConfig,
    **_SHARED,
}
_OTHERS = {"task", "method", "seed", "options", "runs", "more"}


def _sections(task: Any) -> dict[str, type]:
    """The sections of a task's config.

    Raises:
      ValueError: If there is no such task.
    """
    classified, generated = ({x.name for x in tasks} for tasks in (TASKS, GENERATION_TASKS))
    if task not in classified | generated:
        raise ValueError(
            f"Unknown task {task!r}; choose one of {sorted(classified)} or, to generate text, "
            f"{sorted(generated)}."
        )
    return _GENERATION if task in generated else _CLASSIFICATION


def parse(config: config_dict.ConfigDict, only: list[str] | None = None) -> list[Settings]:
    """Checks a config and expands its ``runs``, each a name and the fields in which it differs.

    Args:
      config: See configs/common.py. Without ``runs`` it is one run, named like its method. Runs of
        the configs in ``more`` follow; one without ``runs`` is named as there.
      only: Names of the runs wanted; None means all.

    Returns:
      One `Settings` per run, in the config's order.

    Raises:
      ValueError: For an unknown, missing or bad field, or an unknown run, naming the choices.
    """
    found = _runs(config, None)
    more: Any = config.get("more") or {}
    for name in more:
        others = _runs(more[name], name)
        twice = sorted(found.keys() & others.keys())
        if twice:
            raise ValueError(f"config.more.{name} repeats the names of runs {twice}; rename them.")
        found |= others
    strangers = sorted(set(only or ()) - set(found))
    if strangers:
        raise ValueError(f"The config has no run {strangers}; its runs are {list(found)}.")
    return [_settings(name, plain) for name, plain in found.items() if only is None or name in only]


def _runs(config, alone: str | None) -> dict[str, dict[str, Any]]:
    """Each run's name and plain values; ``alone`` is the name if there are no others."""
    fields = _OTHERS | set(_sections(config.get("task")))
    unknown, missing = sorted(set(config) - fields), sorted(fields - set(config))
    if unknown or missing:
        raise ValueError(
            f"The config has unknown fields {unknown} and lacks {missing}; its fields are "
            f"{sorted(fields)}."
        )
    plain = config.to_dict()
    variants = plain["runs"] or {alone or plain["method"]: {}}
    return {name: _override(config, name, changes) for name, changes in variants.items()}


def _override(config, name, changes) -> dict[str, Any]:
    """The config as plain values, with one run's changes."""
    variant = config.copy_and_resolve_references()
    variant.lock()
    try:
        variant.update(changes)
    except (KeyError, TypeError, ValueError) as error:
        reason = error.args[0] if error.args else error
        raise ValueError(f"config.runs.{name} does not fit the config: {reason}") from error
    plain = variant.to_dict()
    del plain["runs"], plain["more"]
    return plain


def _settings(name, plain) -> Settings:
    """One run's settings."""
    sections: dict[str, Any] = {
        key: _fill(cls, plain[key], key) for key, cls in _sections(plain["task"]).items()
    }
    options = plain["options"]
    if plain["method"] not in options:
        raise ValueError(f"Unknown method {plain['method']!r}; choose one of {list(options)}.")
    return Settings(
        name=name,
        task=plain["task"],
        method=plain["method"],
        seed=plain["seed"],
        options=options[plain["method"]],
        plain=encode({**plain, "options": options[plain["method"]]}),
        **{"decoding": None, **sections},
    )


def _fill(cls, values, section):
    """A dataclass from a section of its fields, all named, none unknown."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    missing = sorted(
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING
    )
    if unknown or missing:
        raise ValueError(
            f"config.{section} has unknown fields {unknown} and lacks {missing}; its fields are "
            f"{list(fields)}."
        )
    for name, wanted in typing.get_type_hints(cls).items():
        if name in values and not _fits(values[name], wanted):
            raise ValueError(
                f"config.{section}.{name} is {values[name]!r}; give "
                f"{getattr(wanted, '__name__', wanted)}."
            )
    return cls(**values)


def _fits(value, wanted) -> bool:
    """Whether a value is of a field's type; a whole number is a float too, a bool is neither."""
    if typing.get_origin(wanted) in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in typing.get_args(wanted))
    if typing.get_origin(wanted) is tuple:
        return isinstance(value, tuple) and all(_fits(x, typing.get_args(wanted)[0]) for x in value)
    if wanted is float:
        wanted = (int, float)
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
