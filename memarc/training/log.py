"""Progress for people, and a JSON-lines log of metrics that are safe to publish."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memarc.training.progress import Progress


class Log:
    """Writes one JSON line every few steps, tells people of them, and feeds TensorBoard if asked.

    Per-example losses and norms are private and must not be passed in.
    """

    def __init__(
        self, path: Path, *, title: str, first: int, steps: int, every: int, tensorboard: bool
    ) -> None:
        """Opens the log for appending.

        Args:
          path: The JSON-lines file; made if absent.
          title: The words in front of what people are told.
          first: The number of updates made before.
          steps: The number of updates of the whole plan.
          every: The number of steps from line to line.
          tensorboard: Whether event files are written beside ``path`` too; needs tensorboardX.

        Raises:
          ValueError: If ``every`` is below 1, or tensorboardX is missing.
        """
        if every < 1:
            raise ValueError(f"training.log_every is {every}; give at least 1.")
        self._writer = _event_writer(path.parent) if tensorboard else None
        _mend(path)
        self._earlier = _seconds_of(path)
        self._file = path.open("a", encoding="utf-8")
        self._every, self._steps = every, steps
        self._start = self._last_line = time.time()
        self._waited = 0.0
        self._progress = Progress(title, first=first, steps=steps)

    def step(self, number: int, metrics: Mapping[str, Any], *, waited: float) -> None:
        """Reports update ``number``; metrics are fetched only when a line is due.

        Args:
          number: The number of the update, from 1.
          metrics: Values that are safe to publish.
          waited: Seconds since the log was opened for which the loop has waited for batches. The
            line tells their share of the time since the line before, "input_share".
        """
        self._progress.step()
        if number % self._every and number != self._steps:
            return
        values = {name: float(value) for name, value in metrics.items()}
        now = time.time()
        share = (waited - self._waited) / max(now - self._last_line, 1e-9)
        self._waited, self._last_line = waited, now
        self.event("step", step=number, **values, input_share=round(min(share, 1.0), 3))
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, number)

    def scores(self, number: int, scores: Mapping[str, float]) -> None:
        """Reports scores of public rows after update ``number``."""
        self.event("validation", step=number, **scores)
        name, value = next(iter(scores.items()))
        self._progress.note(f"{name.replace('_', ' ')} {value:.4g}")
        if self._writer is not None:
            for name, value in scores.items():
                self._writer.add_scalar(name, value, number)

    def event(self, kind: str, **fields: Any) -> None:
        """Writes one line."""
        line = {"event": kind, "seconds": round(time.time() - self._start, 3), **fields}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def total_seconds(self) -> float:
        """The seconds since the log was opened and those of earlier processes of the run, added."""
        return self._earlier + time.time() - self._start

    def close(self) -> None:
        """Ends progress and files."""
        self._progress.close()
        self._file.close()
        if self._writer is not None:
            self._writer.close()


class NoLog:
    """The log of a process that keeps none."""

    def step(self, number: int, metrics: Mapping[str, Any], *, waited: float) -> None:
        """Does nothing."""

    def scores(self, number: int, scores: Mapping[str, float]) -> None:
        """Does nothing."""

    def event(self, kind: str, **fields: Any) -> None:
        """Does nothing."""

    def total_seconds(self) -> float:
        """No number, as nothing is counted here."""
        return math.nan

    def close(self) -> None:
        """Does nothing."""


def _mend(path: Path) -> None:
    """Cuts off a last line that was torn when an earlier process was killed."""
    if path.exists():
        whole, newline, torn = path.read_bytes().rpartition(b"\n")
        if torn:
            os.truncate(path, len(whole) + len(newline))


def _seconds_of(path: Path) -> float:
    """Seconds that earlier processes logged: the last line of each counts."""
    if not path.exists():
        return 0.0
    total, last = 0.0, 0.0
    for line in path.read_text(encoding="utf-8").splitlines():
        seconds = json.loads(line)["seconds"]
        if seconds < last:
            total += last
        last = seconds
    return total + last


def _event_writer(folder: Path) -> Any:
    """What writes TensorBoard's event files."""
    try:
        import tensorboardX  # An optional package.
    except ImportError as error:
        raise ValueError(
            "training.tensorboard needs tensorboardX; run: pip install 'memarc[tensorboard]'"
        ) from error
    return tensorboardX.SummaryWriter(str(folder / "tensorboard"))
