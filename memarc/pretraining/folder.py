"""The folder of a pre-trained backbone: weights, tokenizer, and what they have read.

It appears whole, and only then takes the place of the cycle before.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from memarc.batches import INPUT_IDS
from memarc.data import tokenize
from memarc.models import pretrained
from memarc.pretraining.recipe import Recipe
from memarc.pretraining.rows import PublicRows
from memarc.report import records
from memarc.typing import Params


def save(folder: Path, rows: PublicRows, params: Params, record: Mapping[str, Any]) -> None:
    """Writes a whole folder, and only then puts it in place of the cycle before.

    No weights stand anywhere without what says which rows they have read.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    records.write_json(record, _stated(partial))
    pretrained.save(partial, rows.backbone, params)
    if rows.tokenizer is not None:
        tokenize.save_tokenizer(rows.tokenizer, str(partial))
    if folder.exists():
        folder.rename(_old(folder))
    partial.rename(folder)
    shutil.rmtree(_old(folder), ignore_errors=True)


def describe(
    config: Mapping[str, Any],
    recipe: Recipe,
    rows: PublicRows,
    params: Params,
    *,
    cycle: int,
    seconds: float,
    loss: float,
) -> dict[str, Any]:
    """What the weights are after a cycle, for the folder and for the records of runs.

    Args:
      config: The whole config.
      recipe: The recipe within it.
      rows: What was read.
      params: The backbone's parameters.
      cycle: Number of the cycle, from 0.
      seconds: How long the cycle took.
      loss: Mean loss of its last steps, nats.
    """
    return {
        "source": rows.source,
        "not_private": list(rows.not_private),
        "rows": sum(len(bucket[INPUT_IDS]) for bucket in rows.buckets),
        "cycles": cycle + 1,
        "steps": (cycle + 1) * recipe.steps,
        "seconds": round(seconds, 1),  # Of the last cycle.
        "last_loss": round(loss, 4),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "device": records.device(),
        "versions": records.versions(),
        "config": records.encode(dict(config)),
    }


def cycles_done(config: Mapping[str, Any], folder: Path) -> int:
    """Cycles of the same config that a folder holds.

    Raises:
      ValueError: If it holds weights of another config.
    """
    if not folder.exists() and _old(folder).exists():  # Stopped between the two renames.
        _old(folder).rename(folder)
    shutil.rmtree(_old(folder), ignore_errors=True)
    if not _stated(folder).exists():
        return 0
    found = json.loads(_stated(folder).read_text(encoding="utf-8"))
    if found["config"] != records.encode(dict(config)):
        raise ValueError(
            f"{folder} holds weights of another config; give another --workdir, or remove it."
        )
    return found["cycles"]


def _stated(folder: Path) -> Path:
    """The file that says what was read."""
    return folder / records.PROVENANCE


def _old(folder: Path) -> Path:
    """Where the cycle before lies while the newest takes its place."""
    return folder.with_name(f"{folder.name}.old")
