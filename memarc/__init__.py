"""Differentially private fine-tuning of language models in memory that hardly grows with depth.

`fit_classifier`, `fit_regressor` and `fit_writer` train on rows in memory, `load` reads what a run
released. They are imported when they are asked for, so that a part of the library imports only what
it needs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memarc.data.config import DataConfig as DataConfig
    from memarc.evaluation.decoding import DecodingConfig as DecodingConfig
    from memarc.privacy.mechanism import PrivacyConfig as PrivacyConfig
    from memarc.runs.fit import fit_classifier as fit_classifier
    from memarc.runs.fit import fit_regressor as fit_regressor
    from memarc.runs.fit import fit_writer as fit_writer
    from memarc.runs.sections import ModelSource as ModelSource
    from memarc.runs.sections import TrainingConfig as TrainingConfig
    from memarc.runs.tuned import Tuned as Tuned
    from memarc.runs.tuned import load as load
    from memarc.training.optimizer import OptimizerConfig as OptimizerConfig

_PLACES = {
    "DataConfig": "memarc.data.config",
    "DecodingConfig": "memarc.evaluation.decoding",
    "ModelSource": "memarc.runs.sections",
    "OptimizerConfig": "memarc.training.optimizer",
    "PrivacyConfig": "memarc.privacy.mechanism",
    "TrainingConfig": "memarc.runs.sections",
    "Tuned": "memarc.runs.tuned",
    "fit_classifier": "memarc.runs.fit",
    "fit_regressor": "memarc.runs.fit",
    "fit_writer": "memarc.runs.fit",
    "load": "memarc.runs.tuned",
}
"""Name of the Python face -> the module that holds it."""


def __getattr__(name: str) -> Any:
    """Imports a name of the Python face when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"memarc has no {name!r}; its names are {sorted(_PLACES)}.")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    """The names of the Python face."""
    return sorted(_PLACES)
