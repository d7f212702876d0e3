"""What a run needs to know of the kind of its task: how to load, build, batch and score."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memarc.models.config import BackboneConfig
from memarc.typing import Params


@dataclasses.dataclass(frozen=True)
class Job:
    """One kind of task.

    Attributes:
      load: ``(task name, data config) -> splits``.
      unit: ``(task name, data config) -> `` what one example is.
      build: ``(settings, splits, backbone) -> model``; raises ValueError where they do not fit.
      batch: ``(run, rows, length) -> abstract batch`` of training.
      evaluate: ``(run, trainable, frozen, folder) -> scores``, "split_metric" -> value, the first
        the headline. What else it writes goes to the folder.
    """

    load: Callable[[str, Any], Any]
    unit: Callable[[str, Any], str]
    build: Callable[[Any, Any, BackboneConfig], Any]
    batch: Callable[[Any, int, int], dict[str, Any]]
    evaluate: Callable[[Any, Params, Params, Path], dict[str, float]]
