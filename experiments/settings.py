"""From a config file to checked settings, one per run; the library never sees a ConfigDict."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import config_dict

from memarc.data.load import DataConfig
from memarc.privacy.mechanism import PrivacyConfig
from memarc.report.records import encode
from memarc.training.optimizer import OptimizerConfig


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
      options: The method's options.
      plain: The whole config of the run as JSON values, for the record.
    """

    name: str
    task: str
    method: str
    seed: int | None
    data: DataConfig
    model: ModelSource
    head: HeadChoice
    options: Mapping[str, Any]
    privacy: PrivacyConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    plain: dict[str, Any]


_SECTIONS = {
    "data": DataConfig,
    "model": ModelSource,
    "head": HeadChoice,
    "privacy": PrivacyConfig,
    "optimizer": OptimizerConfig,
    "training": TrainingConfig,
}
_FIELDS = {"task", "method", "seed", "options", "runs", *_SECTIONS}


def parse(config: config_dict.ConfigDict, only: list[str] | None = None) -> list[Settings]:
    """Checks a config and expands its ``runs``, each a name and the fields in which it differs.

    Args:
      config: See configs/common.py. Without ``runs`` it is one run, named like its method.
      only: Names of the runs wanted; None means all.

    Returns:
      One `Settings` per run, in the order of their names.

    Raises:
      ValueError: For an unknown, missing or bad field, or an unknown run, naming the choices.
    """
    unknown, missing = sorted(set(config) - _FIELDS), sorted(_FIELDS - set(config))
    if unknown or missing:
        raise ValueError(
            f"The config has unknown fields {unknown} and lacks {missing}; its fields are "
            f"{sorted(_FIELDS)}."
        )
    plain = config.to_dict()
    variants = plain["runs"] or {plain["method"]: {}}
    strangers = sorted(set(only or ()) - set(variants))
    if strangers:
        raise ValueError(f"The config has no run {strangers}; its runs are {list(variants)}.")
    return [
        _settings(name, _override(config, name, changes))
        for name, changes in variants.items()
        if only is None or name in only
    ]


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
    del plain["runs"]
    return plain


def _settings(name, plain) -> Settings:
    """One run's settings."""
    sections = {key: _fill(cls, plain[key], key) for key, cls in _SECTIONS.items()}
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
        **sections,
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
    return cls(**values)
