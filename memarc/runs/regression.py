"""Regression as a job: its model, its numbers in the user's unit, and its scores.

Axes: N rows.
"""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from memarc.data.codec import Codec
from memarc.data.dataset import Dataset
from memarc.data.load import EvalSet, Splits
from memarc.evaluation import classify, scores
from memarc.evaluation.predicted import Found, Predicted
from memarc.models.build import build
from memarc.models.classifier import Regressor
from memarc.models.config import BackboneConfig
from memarc.models.head import ValueHeadConfig
from memarc.runs.classification import check_pad, check_types
from memarc.runs.parts import Parts
from memarc.runs.settings import Settings
from memarc.training import sharding
from memarc.training.sharding import Placement
from memarc.typing import Params


@dataclasses.dataclass(frozen=True)
class Regression:
    """Implements `memarc.runs.job.Job`."""

    def build(self, settings: Settings, codec: Codec, backbone: BackboneConfig) -> Regressor:
        """Builds the model of a run; raises ValueError for a tokenizer of other weights."""
        assert isinstance(settings.head, ValueHeadConfig)  # `Settings` has checked it.
        check_pad(codec, backbone)
        return build(settings.method, settings.options, backbone, settings.head)

    def check_rows(self, splits: Splits, backbone: BackboneConfig) -> None:
        """Raises ValueError if the tokenizer writes more types than the backbone has."""
        check_types(splits, backbone)

    def predict(
        self,
        parts: Parts,
        trainable: Params,
        frozen: Params,
        evals: Mapping[str, EvalSet],
        folder: Path | None,
    ) -> Found:
        """Predicts the number of every row in the user's unit; writes nothing."""
        del folder
        found = {}
        for split, given in evals.items():
            assert given.dataset.labels is not None  # Rows of an evaluation set have numbers.
            wanted = _in_unit(parts, given.dataset.labels)
            predicted = numbers(parts, trainable, frozen, given.dataset)
            score = partial(_score, parts.settings.record_of_task.metrics, wanted, predicted)
            found[split] = (Predicted(len(predicted), score),)
        return found


def _score(
    metrics: tuple[str, ...], wanted: np.ndarray, predicted: np.ndarray, kept: np.ndarray
) -> dict[str, float]:
    """Scores the numbers of rows."""
    found = scores.score_numbers(metrics, wanted[kept], predicted[kept])
    return {**found, scores.UNDEFINED: scores.undefined(predicted[kept])}


def numbers(parts: Parts, trainable: Params, frozen: Params, dataset: Dataset) -> np.ndarray:
    """The number of every row in the user's unit, float64[N], held within the declared range.

    It is NaN where the network left its range.
    """
    assert isinstance(parts.model, Regressor)
    found = classify.predict_all(
        _predict(parts.model, parts.placement),
        trainable,
        frozen,
        dataset,
        buckets=parts.settings.data.padded_lengths,
        rows=parts.settings.training.eval_batch_size,
    )
    return _in_unit(parts, np.clip(found[:, 0], 0.0, 1.0))


@lru_cache(maxsize=1)
def _predict(model: Regressor, placement: Placement | None) -> classify.Probabilities:
    """The compiled function, which scores while a run trains and at its end share."""
    return classify.make_numbers(model, partial(sharding.compile_rows, placement))


def _in_unit(parts: Parts, shares: np.ndarray) -> np.ndarray:
    """Shares of the declared range as numbers, float64[N]."""
    low, high = parts.settings.data.range
    return low + (high - low) * shares.astype(np.float64)
