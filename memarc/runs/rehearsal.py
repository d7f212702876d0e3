"""Scores public rows before the first step, so that scoring does not fail after the last one."""

from collections.abc import Callable, Mapping

from memarc.batches import CLASSIFICATION, GENERATION
from memarc.data import public_text
from memarc.data.codec import Codec
from memarc.data.load import EvalSet
from memarc.runs.parts import Parts
from memarc.typing import Params

Score = Callable[[Params, Params, Mapping[str, EvalSet]], dict[str, float]]
"""``(trainable, frozen, name of a set -> set) -> "name_metric" -> value``."""

NAME = "public"
"""The name of the set."""


def rehearse(parts: Parts, score: Score, trainable: Params, frozen: Params) -> None:
    """Predicts one batch of public sentences and scores it, as rows of a run will be.

    Args:
      parts: Of the run.
      score: Scores sets of rows.
      trainable: Parameters as they start.
      frozen: The others.

    Raises:
      ValueError: Whatever scoring would raise at the end.
    """
    score(trainable, frozen, {NAME: rows(parts.codec, len(parts.settings.record_of_task.labels))})


def rows(codec: Codec, classes: int) -> EvalSet:
    """An evaluation set of public sentences.

    Args:
      codec: The run's.
      classes: How many labels there are, which go round; regression's numbers rise from 0.
    """
    pairs = public_text.SHORT
    if codec.kind == GENERATION:
        made = public_text.rows(codec, pairs)
        inputs, texts = made.columns
        return EvalSet(codec.dataset(made), codec.prompts(inputs, [[text] for text in texts]))
    is_class = codec.kind == CLASSIFICATION
    labels = [n % classes if is_class else n / len(pairs) for n in range(len(pairs))]
    return EvalSet(codec.dataset(public_text.rows(codec, pairs, labels)), None)
