"""A tuned model in Python: from the folder of a run to predictions, numbers and texts.

Axes: N rows, C classes.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from memarc import paths
from memarc.batches import CLASSIFICATION, GENERATION, LABEL_DTYPES, REGRESSION
from memarc.data import chat
from memarc.data import load as loading
from memarc.data.dataset import Dataset
from memarc.data.load import EvalSet
from memarc.data.rows import Rows
from memarc.evaluation import predicted
from memarc.report import records
from memarc.runs import classification, generation, regression
from memarc.runs.assemble import parts_of
from memarc.runs.job import JOBS
from memarc.runs.parse import settings as settings_of
from memarc.runs.parts import Parts
from memarc.training import export
from memarc.typing import Params

Text = str | tuple[str, str]
"""One text, or the two texts of a pair."""

Input = str | Sequence[chat.Message]
"""One text, or a conversation that the assistant is to go on with."""


_CALLS = {CLASSIFICATION: "predict", REGRESSION: "predict", GENERATION: "write"}
"""Kind of task -> the method of `Tuned` that uses the model."""


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
          ValueError: If the model is no classifier.
        """
        self._check((CLASSIFICATION,), "probabilities")
        dataset = self._dataset(texts)
        return classification.probabilities(self.parts, self.trainable, self.frozen, dataset)

    def numbers(self, texts: Sequence[Text]) -> np.ndarray:
        """The number of each text in the rows' unit, float64[N]; NaN as of `probabilities`.

        Raises:
          ValueError: If the model gives no numbers.
        """
        self._check((REGRESSION,), "numbers")
        dataset = self._dataset(texts)
        return regression.numbers(self.parts, self.trainable, self.frozen, dataset)

    def predict(self, texts: Sequence[Text]) -> list[int] | list[str] | list[float]:
        """The likeliest label of each text, or its number in regression.

        Raises:
          ValueError: If the model writes texts, or the network left its range for some texts, so
            that there is no prediction of them.
        """
        self._check((CLASSIFICATION, REGRESSION), "predict")
        if self.parts.settings.kind == REGRESSION:
            found = self.numbers(texts)
            _check_defined(found)
            return found.tolist()
        odds = self.probabilities(texts)
        _check_defined(odds.max(-1))
        return [self.labels[i] for i in odds.argmax(-1)]  # type: ignore[return-value]

    def write(self, inputs: Sequence[Input]) -> list[str]:
        """Writes the text of each input, as the run's settings for decoding say.

        Args:
          inputs: Texts, or of a model of conversations lists of {"role": .., "content": ..}, or
            such lists as JSON.

        Raises:
          ValueError: If the model writes no texts, or reads no such inputs.
        """
        self._check((GENERATION,), "write")
        texts = prompts_of(inputs, is_chat=self.parts.codec.is_chat)
        prompts = self.parts.codec.prompts(texts)
        return generation.write(self.parts, self.trainable, self.frozen, prompts)[0]

    def evaluate(self, evals: Mapping[str, EvalSet] | None = None) -> dict[str, float]:
        """Scores the model, as the record does.

        Args:
          evals: Name of an evaluation set -> the set; None reads those of the task again.
        """
        settings = self.parts.settings
        if evals is None:
            evals = loading.load(settings.task, settings.data_to_load).evals
        found = JOBS[settings.kind].predict(self.parts, self.trainable, self.frozen, evals, None)
        return predicted.scores(found)

    def _dataset(self, texts: Sequence[Text]) -> Dataset:
        """The tokens of texts; their labels are not read."""
        dtype = LABEL_DTYPES[self.parts.settings.kind]
        return self.parts.codec.dataset(Rows(columns(texts), np.zeros(len(texts), dtype)))

    def _check(self, kinds: Sequence[str], asked: str) -> None:
        """Raises ValueError for a model of another kind."""
        kind = self.parts.settings.kind
        if kind not in kinds:
            raise ValueError(
                f"This model is one of {kind}, which has no {asked}(); call {_CALLS[kind]}()."
            )


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

    >>> import tempfile
    >>> from memarc import DataConfig, PrivacyConfig, fit_classifier
    >>> folder = tempfile.mkdtemp()
    >>> tuned = fit_classifier(
    ...     ["a fine film", "a dull film"] * 20, ["good", "bad"] * 20, names=("bad", "good"),
    ...     weights="configs/quickstart_backbone", folder=folder, method="head",
    ...     privacy=PrivacyConfig(8.0, 1e-3, expected_batch_size=10, engine="vmap"),
    ...     data=DataConfig(max_length=8))
    >>> again = load(folder)
    >>> texts = ["a fine film", "a film"]
    >>> np.array_equal(tuned.probabilities(texts), again.probabilities(texts))
    True
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


def _check_defined(found: np.ndarray) -> None:
    """Raises ValueError that names the rows without a prediction, of one number [N] each."""
    undefined = np.flatnonzero(np.isnan(found))
    if len(undefined):
        raise ValueError(
            f"The network left its range for {len(undefined)} of {len(found)} texts, so there is "
            f"no prediction of number {', '.join(map(str, undefined[:5]))} (from 0); "
            "probabilities() and numbers() give NaN for these."
        )


def prompts_of(inputs: Sequence[Input], *, is_chat: bool) -> list[str]:
    """Inputs as a codec reads them: texts as they are, conversations as JSON.

    Raises:
      ValueError: If there are conversations where texts are wanted, or the other way round.
    """
    if is_chat:
        talks = [given if isinstance(given, str) else list(given) for given in inputs]
        read = [chat.conversation(talk) for talk in talks]
        if not all(read):
            raise ValueError(
                'This model reads conversations; give lists of {"role": .., "content": ..}.'
            )
        return [json.dumps(talk) for talk in read]
    texts = [given for given in inputs if isinstance(given, str)]
    if len(texts) < len(inputs):
        raise ValueError("This model reads texts, and some inputs are none; give texts.")
    return texts


def columns(texts: Sequence[Text]) -> tuple[list[str], ...]:
    """Texts, or pairs of texts, column by column; ValueError where they are of several forms."""
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
