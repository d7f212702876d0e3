"""One record per run: what was promised, what came out, and with what it was made.

Tables and plots are made from records, never by hand.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from memarc import paths

FILE_NAME = "record.json"

PROVENANCE = "pretraining.json"
"""The file, in a folder of weights that were trained here, that tells how and on what."""

_PACKAGES = ("memarc", "jax", "jaxlib", "flax", "optax", "dp-accounting", "numpy", "transformers")


@dataclasses.dataclass(frozen=True)
class Record:
    """Everything that a table or a reader may ask of one run. Nothing in it is read off a batch.

    Attributes:
      name: The run's name within its config.
      method: The tuning method.
      task: The task's name.
      backbone: What the weights are: kind, sizes, and where they come from.
      engine: The engine of the clipped sums.
      epsilon: The epsilon spent, by ``accountant``.
      epsilon_pld: The epsilon spent, by privacy loss distributions.
      delta: The delta of both epsilons.
      clip_norm: C, gradient units.
      clipping: The clipping rule.
      noise_multiplier: Noise standard deviation over C.
      sampling_rate: q, each unit's chance to join a batch.
      expected_batch_size: The mean size of a draw, which is also the divisor.
      steps: The number of noised updates.
      neighbouring: The neighbouring relation.
      unit: The privacy unit, in words.
      reproducible_noise: False if the entropy came from the operating system; else why the run
        is not private.
      trainable_parameters: The number of trainable parameters.
      total_parameters: The number of all parameters, trainable ones included.
      scores: "split_metric" -> value; the first is the headline.
      seconds: The time of training, compilation left out.
      compile_seconds: The time of compilation.
      examples_per_second: The speed by steps and expected batch size.
      memory: Name -> bytes (`memarc.report.memory`, `memarc.ops.compiled`).
      device: Platform, kind and number of devices.
      versions: Versions of packages and Python.
      commit: The commit of the code, with "-dirty" if files differ; "unknown" outside a repository.
      config: The run's whole config.
      sampler: How batches are drawn.
      accountant: The accountant that calibrated the noise and that ``epsilon`` comes from.
      epsilon_rdp: The epsilon spent, by Renyi accounting; None where that does not cover the
        sampler.
      ledger: Number, epsilon and delta of all runs in the run's ledger, this run included. None in
        records that were made before there was a ledger.
      chosen: What the method chose from the public weights before training, such as the range of
        exact streams. None in older records.
      eval_rows: The number of examples of each evaluation set. None in older records.
      standard_errors: "split_metric" -> the standard error of the score
        (`memarc.evaluation.predicted`). None in older records.
      microbatch_size: Rows that were differentiated at once. None in older records.
      remat: What the backward pass kept of the backbone. None in older records.
    """

    name: str
    method: str
    task: str
    backbone: str
    engine: str
    epsilon: float
    epsilon_pld: float
    delta: float
    clip_norm: float
    clipping: str
    noise_multiplier: float
    sampling_rate: float
    expected_batch_size: int
    steps: int
    neighbouring: str
    unit: str
    reproducible_noise: bool | str
    trainable_parameters: int
    total_parameters: int
    scores: dict[str, float]
    seconds: float
    compile_seconds: float
    examples_per_second: float
    memory: dict[str, int]
    device: str
    versions: dict[str, str]
    commit: str
    config: dict[str, Any]
    sampler: str = "poisson"
    accountant: str = "rdp"
    epsilon_rdp: float | None = None
    ledger: dict[str, float] | None = None
    chosen: dict[str, float] | None = None
    eval_rows: dict[str, int] | None = None
    standard_errors: dict[str, float] | None = None
    microbatch_size: int | None = None
    remat: str | None = None

    @property
    def headline(self) -> float:
        """The first score."""
        return next(iter(self.scores.values()))

    @property
    def is_of_people(self) -> bool:
        """Whether the privacy unit is a person with all rows of theirs."""
        return self.config.get("data", {}).get("user") is not None

    @property
    def rows_per_unit(self) -> int | None:
        """The most rows of a unit that are used; None where a unit is one row."""
        data = self.config.get("data", {})
        return data.get("rows_per_user") or data.get("references_per_group")

    def standard_error(self, score: str) -> float | None:
        """The standard error of a score; None where it is not known.

        Of older records it is known of accuracy alone, a share of rows that are counted.

        Args:
          score: Its name, "split_metric".
        """
        if self.standard_errors is not None:
            return self.standard_errors.get(score)
        split, _, metric = score.partition("_")
        capped = self.config["data"].get("eval_rows")  # All that older records say.
        rows = (self.eval_rows or {}).get(split, capped)
        if metric != "accuracy" or not rows:
            return None
        value = self.scores[score]
        return math.sqrt(value * (1 - value) / rows)


def write(record: Record, folder: Path) -> Path:
    """Writes ``folder/record.json`` whole or not at all; returns its path."""
    path = folder / FILE_NAME
    write_json(encode(dataclasses.asdict(record)), path)
    return path


def write_json(content: Any, path: Path) -> None:
    """Writes plain JSON values whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read(path: Path) -> Record:
    """Reads a record.

    Raises:
      ValueError: If the file is missing, no JSON, or lacks or adds a field.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a record ({error}).") from error
    fields = {field.name for field in dataclasses.fields(Record)}
    needed = {x.name for x in dataclasses.fields(Record) if x.default is dataclasses.MISSING}
    given = set(content) if isinstance(content, dict) else set()
    if not needed <= given <= fields:
        raise ValueError(
            f"{path} is no record: it lacks {sorted(needed - given)} and has unknown "
            f"{sorted(given - fields)}."
        )
    if "epsilon_rdp" not in content and content.get("accountant", "rdp") == "rdp":
        content["epsilon_rdp"] = content["epsilon"]  # Older records hold it once.
    for name in ("epsilon", "epsilon_pld", "epsilon_rdp"):
        if content.get(name) is not None:
            content[name] = float(content[name])
    if content.get("ledger"):
        content["ledger"]["epsilon"] = float(content["ledger"]["epsilon"])
    return Record(**content)


def encode(value: Any) -> Any:
    """Makes plain JSON values: tuples become lists, and floats that JSON lacks become strings.

    >>> encode({"epsilon": float("inf"), "buckets": (32, 64)})
    {'epsilon': 'inf', 'buckets': [32, 64]}
    """
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def provenance(weights: str, task: str) -> str:
    """Tells what is known of a backbone's weights: where they are, and what they were trained on.

    Args:
      weights: A folder or a hub name, of weights or of a tokenizer.
      task: The task of the private run that starts from them.

    Raises:
      ValueError: If the folder states its training in a file that cannot be read, or they were
        trained on the task's own rows, about which a private run could then promise nothing.
    """
    path = paths.place(weights) / PROVENANCE
    if not path.is_file():
        return f"weights {weights}"
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        how = f"trained from scratch in {stated['steps']} steps. {stated['source']}"
        not_private = list(stated["not_private"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} does not tell how weights were trained ({error!r}).") from error
    if task in not_private:
        raise ValueError(
            f"The weights in {weights} were trained without privacy on rows of task {task!r}, so a "
            f"private run on it would promise nothing; {path} names {not_private}. Use others."
        )
    return f"weights {weights}, {how}"


def device() -> str:
    """Platform, kind and number of the devices in use; cores for a CPU."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"cpu ({platform.machine()}, {os.cpu_count()} cores)"
    return f"{len(devices)} x {devices[0].device_kind}"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def code_digest() -> str:
    """A hash of the code that runs: every module of the folder that holds this package."""
    found, root = hashlib.sha256(), Path(__file__).parents[2]
    for package in ("memarc", "experiments"):
        for path in sorted((root / package).rglob("*.py")):
            found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def commit(folder: Path) -> str:
    """The commit of the repository that holds ``folder``; "unknown" if there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        return f"{head}-dirty" if git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
