"""Classification as a job: its model, its probabilities and its scores.

Axes: N rows, C classes.
"""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from memarc.batches import TOKEN_TYPE_IDS
from memarc.data.codec import Codec
from memarc.data.dataset import Dataset
from memarc.data.load import EvalSet, Splits
from memarc.evaluation import classify, scores
from memarc.evaluation.predicted import Found, Predicted
from memarc.models.build import build
from memarc.models.classifier import Classifier
from memarc.models.config import BackboneConfig
from memarc.models.head import MASK, WORDS, HeadConfig
from memarc.runs.parts import Parts
from memarc.runs.sections import HeadChoice
from memarc.runs.settings import Settings
from memarc.training import sharding
from memarc.training.optimizer import check_without_head
from memarc.training.sharding import Placement
from memarc.typing import Params


@dataclasses.dataclass(frozen=True)
class Classification:
    """Implements `memarc.runs.job.Job`."""

    def build(self, settings: Settings, codec: Codec, backbone: BackboneConfig) -> Classifier:
        """Builds the classifier of a run.

        Raises:
          ValueError: For a tokenizer of other weights, words that do not fit behind the longest
            row, or an optimizer that is told of a head where words decide.
        """
        assert isinstance(settings.head, HeadChoice)  # `Settings` has checked it.
        check_pad(codec, backbone)
        choice, classes = settings.head, len(settings.record_of_task.labels)
        head = HeadConfig(
            choice.pooling,
            classes,
            codec.label_ids(choice.words),
            choice.bias,
            choice.class_weights,
            choice.smoothing,
            choice.form,
            codec.info.mask_id if choice.pooling == MASK else None,
        )
        if choice.pooling == WORDS:
            check_without_head(settings.optimizer)
            _check_room(settings.data.max_length, head.words, backbone)
        return build(settings.method, settings.options, backbone, head)

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
        """Predicts the classes of every row; writes nothing."""
        del folder
        found = {}
        for split, given in evals.items():
            odds = probabilities(parts, trainable, frozen, given.dataset)
            assert given.dataset.labels is not None  # Rows of an evaluation set have labels.
            score = partial(
                _score, parts.settings.record_of_task.metrics, given.dataset.labels, odds
            )
            found[split] = (Predicted(len(odds), score),)
        return found


def _score(
    metrics: tuple[str, ...], labels: np.ndarray, odds: np.ndarray, kept: np.ndarray
) -> dict[str, float]:
    """Scores the likeliest class of rows, wrong where there is none."""
    found = scores.score(metrics, labels[kept], odds[kept])
    return {**found, scores.UNDEFINED: scores.undefined(odds[kept])}


def check_pad(codec: Codec, backbone: BackboneConfig) -> None:
    """Raises ValueError for a tokenizer that fills up rows otherwise than an encoder was told."""
    if codec.info.pad_id != backbone.pad_id and not backbone.parts.is_decoder:
        raise ValueError(
            f"Tokenizer {codec.info.name!r} pads with id {codec.info.pad_id}; the backbone has "
            f"{backbone.pad_id}. Give the tokenizer that the weights were trained with."
        )


def _check_room(
    max_length: int, words: tuple[tuple[int, ...], ...], backbone: BackboneConfig
) -> None:
    """Raises ValueError if the longest words do not fit behind the longest row."""
    longest = max(map(len, words), default=0)
    if max_length + longest > backbone.longest_sequence:
        raise ValueError(
            f"data.max_length is {max_length}, and the words of a label have up to {longest} "
            f"tokens; the backbone has positions for {backbone.longest_sequence}: lower "
            "data.max_length."
        )


def check_types(splits: Splits, backbone: BackboneConfig) -> None:
    """Raises ValueError if rows have more token types than the backbone."""
    sets = (splits.train, *(given.dataset for given in splits.evals.values()))
    types = 1 + max(int(x.encoded.tokens[TOKEN_TYPE_IDS].max(initial=0)) for x in sets)
    if backbone.type_vocab and types > backbone.type_vocab:  # Without a table none is read.
        raise ValueError(
            f"Tokenizer {splits.codec.info.name!r} writes {types} token types; the backbone "
            f"has {backbone.type_vocab}."
        )


def probabilities(parts: Parts, trainable: Params, frozen: Params, dataset: Dataset) -> np.ndarray:
    """The probability of every class, float32[N, C], in the order of the rows."""
    assert isinstance(parts.model, Classifier)
    return classify.predict_all(
        _predict(parts.model, parts.placement),
        trainable,
        frozen,
        dataset,
        buckets=parts.settings.data.padded_lengths,
        rows=parts.settings.training.eval_batch_size,
    )


@lru_cache(maxsize=1)
def _predict(model: Classifier, placement: Placement | None) -> classify.Probabilities:
    """The compiled function, which scores while a run trains and at its end share."""
    return classify.make_probabilities(model, partial(sharding.compile_rows, placement))
