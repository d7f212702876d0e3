"""A tuned model in Python: from rows in memory, or from the folder of a run, to predictions.

Axes: N rows, C classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import jax
import numpy as np

from memarc import paths
from memarc.batches import CLASSIFICATION, GENERATION
from memarc.data import load as loading
from memarc.data.config import DataConfig
from memarc.data.load import EvalSet
from memarc.data.rows import Rows
from memarc.evaluation.decoding import DecodingConfig
from memarc.models.language import LanguageConfig
from memarc.privacy.mechanism import PrivacyConfig
from memarc.report import records
from memarc.runs import classification, generation
from memarc.runs.assemble import assemble_rows, parts_of
from memarc.runs.job import JOBS
from memarc.runs.parse import settings as settings_of
from memarc.runs.parts import Parts, Run
from memarc.runs.run import make_one
from memarc.runs.sections import HeadChoice, LedgerConfig, ModelSource, TrainingConfig
from memarc.runs.settings import Settings
from memarc.training import export
from memarc.training.interrupt import stop_requests
from memarc.training.optimizer import OptimizerConfig
from memarc.training.sharding import MeshConfig
from memarc.typing import Params

Text = str | tuple[str, str]
"""One text, or the two texts of a pair."""


class Choices(TypedDict, total=False):
    """What a user of `fit_classifier` and `fit_writer` may choose; see `Settings` for each."""

    method: str
    options: Mapping[str, Any]
    seed: int | None
    head: HeadChoice | LanguageConfig
    decoding: DecodingConfig
    ledger: LedgerConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    mesh: MeshConfig


@dataclasses.dataclass(frozen=True, eq=False)
class Tuned:
    """A model with its tuned parameters.

    Attributes:
      parts: The model, its tokenizer and its backbone.
      trainable: The tuned parameters.
      frozen: All others.
      record: What the run promised and did, and its scores.
    """

    parts: Parts
    trainable: Params
    frozen: Params
    record: records.Record

    @property
    def labels(self) -> tuple[int, ...] | tuple[str, ...]:
        """The labels of a classification task, in the order of `probabilities`."""
        return self.parts.settings.record_of_task.labels

    def probabilities(self, texts: Sequence[Text]) -> np.ndarray:
        """The probability of every label, float32[N, C]; NaN where the network left its range.

        Raises:
          ValueError: If the model writes texts.
        """
        self._check(CLASSIFICATION, "write")
        dataset = self.parts.codec.dataset(Rows(_columns(texts), np.zeros(len(texts), np.int32)))
        return classification.probabilities(self.parts, self.trainable, self.frozen, dataset)

    def predict(self, texts: Sequence[Text]) -> list[int] | list[str]:
        """The likeliest label of each text.

        Raises:
          ValueError: If the model writes texts.
        """
        return [self.labels[i] for i in self.probabilities(texts).argmax(-1)]  # type: ignore[return-value]

    def write(self, inputs: Sequence[str]) -> list[str]:
        """Writes the text of each input, as the run's settings for decoding say.

        Raises:
          ValueError: If the model is a classifier.
        """
        self._check(GENERATION, "predict")
        prompts = self.parts.codec.prompts(inputs)
        return generation.write(self.parts, self.trainable, self.frozen, prompts)[0]

    def evaluate(self, evals: Mapping[str, EvalSet] | None = None) -> dict[str, float]:
        """Scores the model, as the record does.

        Args:
          evals: Name of an evaluation set -> the set; None reads those of the task again.
        """
        settings = self.parts.settings
        if evals is None:
            evals = loading.load(settings.task, settings.data_to_load).evals
        job = JOBS[settings.kind]
        return job.evaluate(self.parts, self.trainable, self.frozen, evals, None)

    def _check(self, kind: str, other: str) -> None:
        """Raises ValueError for a model of another kind."""
        if self.parts.settings.kind != kind:
            raise ValueError(f"This model is one of {self.parts.settings.kind}; call {other}().")


def fit_classifier(
    texts: Sequence[Text],
    labels: Sequence[str],
    *,
    names: Sequence[str],
    weights: str,
    folder: str | Path,
    privacy: PrivacyConfig,
    dev: tuple[Sequence[Text], Sequence[str]] | None = None,
    data: DataConfig | None = None,
    **choices: Unpack[Choices],
) -> Tuned:
    """Trains a classifier privately on texts in memory, and writes its folder.

    The same call goes on with a run that was stopped, and gives back a finished one.

    Args:
      texts: N texts, or N pairs of texts; a row is one privacy unit.
      labels: The label of each.
      names: All labels, declared: what is private is not asked for them.
      weights: A folder of pre-trained weights, a GGUF file, or a hub name.
      folder: Where parameters, record, log and ledger go; made if absent.
      privacy: What the run promises.
      dev: Texts and labels to score on, which are not trained on.
      data: Lengths and tokenizer (source "memory"); None takes the defaults.
      **choices: Method, optimizer and whatever else `Settings` has.

    Returns:
      The tuned model.

    Raises:
      ValueError: For a label that is not declared, or settings that do not go together.
    """
    data = dataclasses.replace(data or DataConfig(source="memory"), labels=tuple(names))
    source = ModelSource(weights)
    settings = Settings(CLASSIFICATION, data, source, privacy, **choices)
    evals = {} if dev is None else {"dev": _labelled(*dev, names)}
    return _fit(settings, _labelled(texts, labels, names), evals, paths.place(folder))


def fit_writer(
    inputs: Sequence[str],
    targets: Sequence[str],
    *,
    weights: str,
    folder: str | Path,
    privacy: PrivacyConfig,
    dev: tuple[Sequence[str], Sequence[str]] | None = None,
    data: DataConfig | None = None,
    **choices: Unpack[Choices],
) -> Tuned:
    """Trains a language model privately to write a target for an input.

    Args:
      inputs: N texts that are given.
      targets: N texts that are wanted; an input and its target are one row, and a privacy unit.
      weights: A folder of a pre-trained decoder, a GGUF file, or a hub name.
      folder: Where parameters, record, log and ledger go; made if absent.
      privacy: What the run promises.
      dev: Inputs and targets to score on, which are not trained on.
      data: Lengths and tokenizer (source "memory"); None takes the defaults.
      **choices: Method, decoding and whatever else `Settings` has.

    Returns:
      The tuned model.

    Raises:
      ValueError: For settings that do not go together.
    """
    data = data or DataConfig(source="memory")
    settings = Settings(GENERATION, data, ModelSource(weights), privacy, **choices)
    evals = {} if dev is None else {"dev": Rows((list(dev[0]), list(dev[1])), None)}
    return _fit(settings, Rows((list(inputs), list(targets)), None), evals, paths.place(folder))


def load(folder: str | Path, *, weights: str | None = None) -> Tuned:
    """Loads what a run released: the very model that its record scored.

    Args:
      folder: The run's folder, with record.json and the released parameters.
      weights: Where the backbone's weights are now; None takes the record's place, which may be
        relative to the folder in which the run was started.

    Returns:
      The tuned model, on one device.

    Raises:
      ValueError: If a file is missing or damaged, or the parameters are of another model.
    """
    folder = paths.place(folder)
    record = records.read(folder / records.FILE_NAME)
    settings = settings_of(record.config, record.name)
    if weights is not None:
        source = dataclasses.replace(settings.model, weights=weights)
        settings = dataclasses.replace(settings, model=source)
    parts = parts_of(settings, None, None)
    trainable, frozen = parts.model.init(jax.random.key(0), parts.params)
    released, drawn = export.load(folder)
    for name, given, wanted in (("tuned", released, trainable), ("drawn", drawn, frozen["drawn"])):
        _check_tree(folder, name, given, wanted)
    frozen = {**frozen, "drawn": drawn}
    return Tuned(parts, jax.device_put(released), jax.device_put(frozen), record)


def _fit(settings: Settings, train: Rows, evals: Mapping[str, Rows], folder: Path) -> Tuned:
    """Makes the run, or finds it finished, and gives its model."""
    run: Run = assemble_rows(settings, train, evals)
    with stop_requests() as should_stop:
        make_one(run, folder, should_stop)
    return load(folder)


def _labelled(texts: Sequence[Text], labels: Sequence[str], names: Sequence[str]) -> Rows:
    """Rows with labels as positions in the declared names."""
    places = {name: place for place, name in enumerate(names)}
    if any(
        label not in places for label in labels
    ):  # Neither which nor how many: both are private.
        raise ValueError(f"Some labels are none of the declared names {list(names)}; declare all.")
    return Rows(_columns(texts), np.asarray([places[label] for label in labels], np.int32))


def _columns(texts: Sequence[Text]) -> tuple[list[str], ...]:
    """Texts, or pairs of texts, column by column."""
    if all(isinstance(text, str) for text in texts):
        return ([text for text in texts if isinstance(text, str)],)
    if any(isinstance(text, str) or len(text) != 2 for text in texts):
        raise ValueError("Texts are of several forms; give one text a row, or a pair each.")
    first, second = zip(*texts, strict=True)
    return list(first), list(second)


def _check_tree(folder: Path, name: str, given: Params, wanted: Params) -> None:
    """Raises ValueError where loaded parameters are not those of the model."""
    shapes = [
        {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(t)}
        for t in (given, wanted)
    ]
    if shapes[0] != shapes[1]:
        wrong = sorted(
            k for k in {**shapes[0], **shapes[1]} if shapes[0].get(k) != shapes[1].get(k)
        )
        raise ValueError(
            f"The {name} parameters in {folder} are not those of its record's model: {wrong} "
            "differ. Give the folder that one run wrote."
        )
