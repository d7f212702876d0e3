"""Tables made from records, for a terminal or for a Markdown page."""

import math
from collections.abc import Callable, Mapping, Sequence

import tabulate

from memarc.report.records import Record

COLUMNS: Mapping[str, Callable[[Record], str]] = {
    "task": lambda record: record.task,
    "method": lambda record: record.method,
    "score": lambda record: ", ".join(
        f"{100 * value:.1f} ({name.replace('_', ' ')})" for name, value in record.scores.items()
    ),
    "epsilon": lambda record: _number(record.epsilon),
    "epsilon by PLD": lambda record: _number(record.epsilon_pld),
    "delta": lambda record: f"{record.delta:g}",
    "trainable": lambda record: f"{record.trainable_parameters:,}",
    "kept for backward": lambda record: _bytes(record.memory["backward_bytes"]),
    "seconds": lambda record: f"{record.seconds:.0f}",
    "steps": lambda record: str(record.steps),
    "batch": lambda record: str(record.expected_batch_size),
    "noise": lambda record: f"{record.noise_multiplier:.4g}",
    "clip": lambda record: f"{record.clip_norm:g} {record.clipping}",
    "device": lambda record: record.device,
    "commit": lambda record: record.commit[:8],
}

QUICK = (
    "method",
    "score",
    "epsilon",
    "delta",
    "trainable",
    "kept for backward",
    "seconds",
)

STYLES = {"terminal": "simple", "markdown": "pipe"}


def table(records: Sequence[Record], columns: Sequence[str], style: str) -> str:
    """Renders records as rows.

    Args:
      records: In the order of the rows.
      columns: Names in `COLUMNS`.
      style: A name in `STYLES`.

    Returns:
      The table as text.

    Raises:
      ValueError: If a column or the style is unknown.
    """
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise ValueError(f"Unknown columns {unknown}; choose from {list(COLUMNS)}.")
    if style not in STYLES:
        raise ValueError(f"Unknown style {style!r}; choose one of {list(STYLES)}.")
    rows = [[COLUMNS[name](record) for name in columns] for record in records]
    return tabulate.tabulate(rows, columns, tablefmt=STYLES[style], disable_numparse=True)


def _number(value: float) -> str:
    return "inf" if math.isinf(value) else f"{value:.3f}"


def _bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
