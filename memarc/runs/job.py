"""What a run needs to know of the kind of its task: how to build the model, and how to score it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from memarc.batches import CLASSIFICATION, GENERATION, REGRESSION
from memarc.data.codec import Codec
from memarc.data.load import EvalSet, Splits
from memarc.evaluation.predicted import Found
from memarc.models.classifier import Classifier, Regressor
from memarc.models.config import BackboneConfig
from memarc.models.language import LanguageModel
from memarc.runs.classification import Classification
from memarc.runs.generation import Generation
from memarc.runs.parts import Parts
from memarc.runs.regression import Regression
from memarc.runs.settings import Settings
from memarc.typing import Params


class Job(Protocol):
    """One kind of task."""

    def build(
        self, settings: Settings, codec: Codec, backbone: BackboneConfig
    ) -> Classifier | Regressor | LanguageModel:
        """Builds the model of a run.

        Raises:
          ValueError: If settings, tokenizer and backbone do not go together.
        """
        ...

    def check_rows(self, splits: Splits, backbone: BackboneConfig) -> None:
        """Raises ValueError if rows hold what the backbone cannot read."""
        ...

    def predict(
        self,
        parts: Parts,
        trainable: Params,
        frozen: Params,
        evals: Mapping[str, EvalSet],
        folder: Path | None,
    ) -> Found:
        """Predicts the rows of evaluation sets by trained parameters.

        Args:
          parts: What the parameters are of.
          trainable: The tuned ones.
          frozen: The others.
          evals: Name of an evaluation set -> the set.
          folder: Where whatever else is written goes, such as texts; None writes nothing.

        Returns:
          Name of a set -> predictions, of which the first one's first score is the headline.
        """
        ...


JOBS: Mapping[str, Job] = {
    CLASSIFICATION: Classification(),
    REGRESSION: Regression(),
    GENERATION: Generation(),
}
"""Kind of task -> its job."""
