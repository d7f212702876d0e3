"""What stands at the end of runs: scores and costs, where the files are, and what to do next."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from memarc.models.methods import METHODS
from memarc.report import plots, tables
from memarc.report.records import Record
from memarc.runs import exporting

CURVES, _LOG = "curves.png", "log.jsonl"

_FILES = {
    "record.json": "promise, scores, costs and config",
    _LOG: "noised quantities by step",
    CURVES: "the same as a picture",
    "trainable.safetensors": "the tuned parameters, which may be released",
    "drawn.safetensors": "what was drawn beside them, which goes with them",
    "outputs-*.jsonl": "texts written for evaluation rows",
    "ledger.jsonl": "what was spent: keep it, and keep it to yourself",
}
"""File of a run's folder -> what it is."""


def finish(made: Mapping[Path, Record]) -> str:
    """Draws the curves of finished runs, and tells all of them together.

    Args:
      made: Folder of a run -> its record.

    Returns:
      A table of all, the files of each, and commands that go on from the first.
    """
    for folder, record in made.items():
        draw_curves(folder, record)
    found = list(made.values())
    columns = tables.with_telling(found, tables.SUMMARY)
    table = tables.table(found, columns, "terminal", tables.columns_of(found))
    folder, record = next(iter(made.items()))
    places = "\n".join(f"  {place}" for place in made)
    names = [name for name in _FILES if any(any(place.glob(name)) for place in made)]
    files = "\n".join(f"  {name:<22} {_FILES[name]}" for name in names)
    commands = [f"predict --run={folder} --input=FILE --output=FILE"]
    if issubclass(METHODS[record.method], exporting.EXPORTED):
        commands.append(f"export --run={folder} --output=FOLDER")
    commands.append(f"account --statement={folder}")
    following = "\n".join(f"  python -m experiments.{command}" for command in commands)
    return (
        f"{table}\n\nSeconds are those of training; scores have their standard error."
        f"\n\nIn\n{places}\nare\n{files}\n\nNext:\n{following}"
    )


def draw_curves(folder: Path, record: Record) -> None:
    """Draws a run's log into its folder, where there is a log and matplotlib is installed."""
    log = folder / _LOG
    if not log.exists() or not plots.is_installed():
        return
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    stddev = record.noise_multiplier * record.clip_norm / record.expected_batch_size
    noise_norm = stddev * math.sqrt(record.trainable_parameters)
    plots.learning_curves(lines, noise_norm, folder / CURVES)
