"""Trains privately on rows in memory, and gives back the tuned model."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from memarc import paths
from memarc.batches import CLASSIFICATION, GENERATION, REGRESSION
from memarc.data import own_rows
from memarc.data.config import DataConfig
from memarc.data.rows import Rows
from memarc.evaluation.decoding import DecodingConfig
from memarc.models.head import ValueHeadConfig
from memarc.models.language import LanguageConfig
from memarc.privacy.mechanism import PrivacyConfig
from memarc.runs.assemble import assemble_rows
from memarc.runs.parts import Run
from memarc.runs.run import make_one
from memarc.runs.sections import HeadChoice, LedgerConfig, ModelSource, TrainingConfig
from memarc.runs.settings import Settings
from memarc.runs.tuned import Input, Text, Tuned, columns, load, prompts_of
from memarc.training.interrupt import stop_requests
from memarc.training.optimizer import OptimizerConfig
from memarc.training.sharding import MeshConfig


class Choices(TypedDict, total=False):
    """What a user of `fit_classifier` and the like may choose; see `Settings` for each."""

    method: str
    options: Mapping[str, Any]
    seed: int | None
    head: HeadChoice | ValueHeadConfig | LanguageConfig
    decoding: DecodingConfig
    ledger: LedgerConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    mesh: MeshConfig


def fit_classifier(
    texts: Sequence[Text],
    labels: Sequence[str],
    *,
    names: Sequence[str],
    weights: str | ModelSource,
    folder: str | Path,
    privacy: PrivacyConfig,
    dev: tuple[Sequence[Text], Sequence[str]] | None = None,
    data: DataConfig | None = None,
    users: Sequence[str | int] | None = None,
    rows_per_user: int | None = None,
    **choices: Unpack[Choices],
) -> Tuned:
    """Trains a classifier privately on texts in memory, and writes its folder.

    The same call goes on with a run that was stopped, and gives back a finished one.

    Args:
      texts: N texts, or N pairs of texts; a row is one privacy unit unless
        ``users`` are given.
      labels: The label of each.
      names: All labels, declared: what is private is not asked for them.
      weights: A folder of pre-trained weights, a GGUF file or a hub name; or a `ModelSource`, which
        also says their dtype, storage and remat.
      folder: Where parameters, record, log and ledger go; made if absent.
      privacy: What the run promises.
      dev: Texts and labels to score on, which are not trained on.
      data: Lengths, tokenizer and the like, whose source is always "memory" here; None takes the
        defaults.
      users: The person whose each row is, which makes a person the unit; None leaves it a row.
      rows_per_user: How many rows of a person are used; given with ``users``.
      **choices: Method, optimizer and whatever else `Choices` names.

    Returns:
      The tuned model.

    Raises:
      ValueError: For a label that is not declared, or settings that do not go together.

    >>> import tempfile
    >>> tuned = fit_classifier(
    ...     ["a fine film", "a dull film"] * 20, ["good", "bad"] * 20, names=("bad", "good"),
    ...     weights="configs/quickstart_backbone", folder=tempfile.mkdtemp(), method="head",
    ...     privacy=PrivacyConfig(8.0, 1e-3, expected_batch_size=10, engine="vmap"),
    ...     data=DataConfig(max_length=8), training=TrainingConfig(epochs=0.5))
    >>> tuned.record.steps, tuned.record.epsilon <= 8.0
    (2, True)
    >>> set(tuned.predict(["a fine film", "a film"])) <= {"bad", "good"}
    True
    """
    data = dataclasses.replace(_data(data, users, rows_per_user), labels=tuple(names))
    settings = Settings(CLASSIFICATION, data, _source(weights), privacy, **choices)
    evals = {} if dev is None else {"dev": _labelled(*dev, names)}
    train = _owned(_labelled(texts, labels, names), users)
    return _fit(settings, train, evals, paths.place(folder))


def fit_regressor(
    texts: Sequence[Text],
    values: Sequence[float],
    *,
    range: tuple[float, float],
    weights: str | ModelSource,
    folder: str | Path,
    privacy: PrivacyConfig,
    dev: tuple[Sequence[Text], Sequence[float]] | None = None,
    data: DataConfig | None = None,
    users: Sequence[str | int] | None = None,
    rows_per_user: int | None = None,
    **choices: Unpack[Choices],
) -> Tuned:
    """Trains privately a model that gives a number for a text.

    The loss is the squared error of the number's share of the range; scores are in its unit.

    Args:
      texts: N texts, or N pairs of texts; a row is one privacy unit unless
        ``users`` are given.
      values: The number of each.
      range: The least and the greatest number that there may be, declared.
      weights: A folder of pre-trained weights, a GGUF file or a hub name; or a `ModelSource`, which
        also says their dtype, storage and remat.
      folder: Where parameters, record, log and ledger go; made if absent.
      privacy: What the run promises.
      dev: Texts and numbers to score on, which are not trained on.
      data: Lengths, tokenizer and the like, whose source is always "memory" here; None takes the
        defaults.
      users: The person whose each row is, which makes a person the unit; None leaves it a row.
      rows_per_user: How many rows of a person are used; given with ``users``.
      **choices: Method, optimizer and whatever else `Choices` names.

    Returns:
      The tuned model.

    Raises:
      ValueError: For a number out of range, or settings that do not go together.

    >>> import tempfile
    >>> tuned = fit_regressor(
    ...     ["a fine film", "a dull film"] * 20, [4.5, 1.0] * 20, range=(1.0, 5.0),
    ...     weights="configs/quickstart_backbone", folder=tempfile.mkdtemp(), method="head",
    ...     privacy=PrivacyConfig(8.0, 1e-3, expected_batch_size=10, engine="vmap"),
    ...     data=DataConfig(max_length=8), training=TrainingConfig(epochs=0.5))
    >>> tuned.numbers(["a fine film", "a film"]).shape
    (2,)
    """
    data = _data(data, users, rows_per_user)
    data = dataclasses.replace(data, range=tuple(map(float, range)))
    settings = Settings(REGRESSION, data, _source(weights), privacy, **choices)
    evals = {} if dev is None else {"dev": _numbered(*dev, data.range)}
    train = _owned(_numbered(texts, values, data.range), users)
    return _fit(settings, train, evals, paths.place(folder))


def fit_writer(
    inputs: Sequence[Input],
    targets: Sequence[str],
    *,
    weights: str | ModelSource,
    folder: str | Path,
    privacy: PrivacyConfig,
    dev: tuple[Sequence[Input], Sequence[str]] | None = None,
    data: DataConfig | None = None,
    users: Sequence[str | int] | None = None,
    rows_per_user: int | None = None,
    **choices: Unpack[Choices],
) -> Tuned:
    """Trains a language model privately to write a target for an input.

    Args:
      inputs: N texts that are given, or N conversations, lists of {"role": .., "content": ..}, that
        the assistant is to go on with.
      targets: N texts that are wanted; an input and its target are one row, and a privacy unit
        unless ``users`` are given.
      weights: A folder of a pre-trained decoder, a GGUF file or a hub name; or a `ModelSource`,
        which also says their dtype, storage and remat.
      folder: Where parameters, record, log and ledger go; made if absent.
      privacy: What the run promises.
      dev: Inputs and targets to score on, which are not trained on.
      data: Lengths, tokenizer and the like, whose source is always "memory" here; None takes the
        defaults.
      users: The person whose each row is, which makes a person the unit; None leaves it a row.
      rows_per_user: How many rows of a person are used; given with ``users``.
      **choices: Method, decoding and whatever else `Choices` names.

    Returns:
      The tuned model.

    Raises:
      ValueError: For settings that do not go together.

    >>> import tempfile
    >>> tuned = fit_writer(
    ...     ["name : The Mill"] * 40, ["The Mill is a pub ."] * 40,
    ...     weights="configs/quickstart_decoder", folder=tempfile.mkdtemp(), method="bitfit",
    ...     privacy=PrivacyConfig(8.0, 1e-3, expected_batch_size=10, engine="vmap"),
    ...     data=DataConfig(separator="[SEP]", max_length=24, max_prompt=9),
    ...     training=TrainingConfig(epochs=0.5), decoding=DecodingConfig(max_tokens=5))
    >>> [len(text.split()) <= 5 for text in tuned.write(["name : The Mill"])]
    [True]
    """
    data = _data(data, users, rows_per_user)
    if not all(isinstance(given, str) for given in inputs):
        data = dataclasses.replace(data, messages=data.messages or "messages")
    is_chat = data.messages is not None
    train = _owned(Rows((prompts_of(inputs, is_chat=is_chat), list(targets)), None), users)
    evals = {}
    if dev is not None:
        evals = {"dev": Rows((prompts_of(dev[0], is_chat=is_chat), list(dev[1])), None)}
    settings = Settings(GENERATION, data, _source(weights), privacy, **choices)
    return _fit(settings, train, evals, paths.place(folder))


def _fit(settings: Settings, train: Rows, evals: Mapping[str, Rows], folder: Path) -> Tuned:
    """Makes the run, or finds it finished, and gives its model."""
    run: Run = assemble_rows(settings, train, evals)
    with stop_requests() as should_stop:
        make_one(run, folder, should_stop)
    return load(folder)


def _source(weights: str | ModelSource) -> ModelSource:
    """The section of the model."""
    return weights if isinstance(weights, ModelSource) else ModelSource(weights)


def _data(
    data: DataConfig | None, users: Sequence[str | int] | None, rows_per_user: int | None
) -> DataConfig:
    """The data section, which says whether rows have people, and how many rows of each are used."""
    data = dataclasses.replace(data or DataConfig(), source="memory")
    if rows_per_user is not None:
        data = dataclasses.replace(data, rows_per_user=rows_per_user)
    return data if users is None else dataclasses.replace(data, user=data.user or "users")


def _owned(rows: Rows, users: Sequence[str | int] | None) -> Rows:
    """Rows with the names of their people, where there are any."""
    if users is None:
        return rows
    names = [own_rows.person(user) for user in users]
    if None in names:  # Neither which nor how many: both are private.
        raise ValueError(
            "Some users are no names; give a text that is not empty, or a whole number, for each."
        )
    return dataclasses.replace(rows, users=[name for name in names if name is not None])


def _labelled(texts: Sequence[Text], labels: Sequence[str], names: Sequence[str]) -> Rows:
    """Rows with labels as positions in the declared names."""
    places = {name: place for place, name in enumerate(names)}
    if any(
        label not in places for label in labels
    ):  # Neither which nor how many: both are private.
        raise ValueError(f"Some labels are none of the declared names {list(names)}; declare all.")
    return Rows(columns(texts), np.asarray([places[label] for label in labels], np.int32))


def _numbered(texts: Sequence[Text], values: Sequence[float], bounds: tuple[float, ...]) -> Rows:
    """Rows with numbers as shares of the declared range."""
    if any(own_rows.is_outside(value, bounds) for value in values):
        raise ValueError(
            f"Some values are no numbers from {bounds[0]:g} to {bounds[1]:g}; declare a range that "
            "holds all, or cut them to it."
        )
    return Rows(columns(texts), own_rows.shares(values, bounds))
