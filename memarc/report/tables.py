"""Tables made from records, or from lines of measurements, for a terminal or a Markdown page."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import tabulate

from memarc.report import targets
from memarc.report.records import Record

NOT_PERCENT = ("nist", "cider", "perplexity", "rmse")
"""How names of scores end that are shown as they are; all other scores are shares of 1."""

COLUMNS: Mapping[str, Callable[[Record], str]] = {
    "task": lambda record: record.task,
    "method": lambda record: record.method,
    "score": lambda record: ", ".join(
        f"{_score(name, value)} ({name.replace('_', ' ')})"
        for name, value in _headlines(record.scores).items()
    ),
    "scores": lambda record: ", ".join(
        f"{_score(name, value)}{_error(record, name)} ({name.replace('_', ' ')})"
        for name, value in _headlines(record.scores).items()
    ),
    "epsilon": lambda record: _epsilon(record, record.epsilon),
    "accountant": lambda record: record.accountant,
    "epsilon by RDP": lambda record: (
        "not covered" if record.epsilon_rdp is None else _epsilon(record, record.epsilon_rdp)
    ),
    "epsilon by PLD": lambda record: _epsilon(record, record.epsilon_pld),
    "delta": lambda record: f"{record.delta:g}",
    "trainable": lambda record: f"{record.trainable_parameters:,}",
    "kept for backward": lambda record: _bytes(record.memory["backward_bytes"]),
    "set aside": lambda record: _bytes(record.memory.get("reserved_bytes", 0)),
    "seconds": lambda record: f"{record.seconds:.0f}",
    "steps": lambda record: str(record.steps),
    "batch": lambda record: str(record.expected_batch_size),
    "noise": lambda record: f"{record.noise_multiplier:.4g}",
    "clip": lambda record: f"{record.clip_norm:g} {record.clipping}",
    "device": lambda record: record.device,
    "commit": lambda record: record.commit[:8],
}

QUICK = (
    "task",
    "method",
    "score",
    "epsilon",
    "delta",
    "trainable",
    "kept for backward",
    "seconds",
)

SUMMARY = (
    "task",
    "method",
    "scores",
    "epsilon",
    "delta",
    "trainable",
    "kept for backward",
    "set aside",
    "seconds",
)

LINE_COLUMNS: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "method": lambda line: line["method"],
    "engine": lambda line: line["engine"],
    "target": lambda line: line["target"],
    "layers": lambda line: str(line["layers"]),
    "batch": lambda line: str(line["batch_size"]),
    "tokens": lambda line: str(line["seq_len"]),
    "rows at once": lambda line: str(line["microbatch_size"]),
    "beyond weights": lambda line: _peak(line, "beyond_arguments_bytes"),
    "whole peak": lambda line: _peak(line, "peak_bytes"),
    "whole set aside": lambda line: _peak(line, "reserved_bytes"),
    "measured peak": lambda line: _bytes(line["measured_peak_bytes"]),
    "work": lambda line: f"{line['flops'] / 1e12:.2f} TFLOP",
    "reduction": lambda line: str(line["options"].get("reduction", "")),
    "chips": lambda line: str(chips(line)),
    "mesh": lambda line: _mesh(line),
    "received": lambda line: f"{_received(line) / 2**30:.1f} GiB",
    "work at peak": lambda line: _least_seconds(line, 0),
    "received at peak": lambda line: _least_seconds(line, 1),
    "milliseconds": lambda line: f"{1e3 * line['median_seconds']:.0f}",
    "share of peak": lambda line: f"{100 * line['utilisation']:.0f} %",
    "over plain": lambda line: f"{line['over_plain']:.2f}",
    "rows a second": lambda line: f"{line['examples_per_second']:.1f}",
    "input": lambda line: _cell(line["input"]),
    "output": lambda line: _cell(line["output"]),
    "a reference": lambda line: _cell(line["references"][0]),
}

MEMORY = ("method", "engine", "layers", "beyond weights", "whole peak", "whole set aside", "work")
BENCH = ("method", "engine", "rows at once", "milliseconds", "over plain", "rows a second")

SLICES = (
    "method",
    "chips",
    "mesh",
    "batch",
    "tokens",
    "beyond weights",
    "whole peak",
    "work at peak",
    "received",
    "received at peak",
)

TEXTS = ("input", "output", "a reference")

STYLES = {"terminal": "simple", "markdown": "pipe"}


_Item = TypeVar("_Item")


def table(
    items: Sequence[_Item],
    columns: Sequence[str],
    style: str,
    known: Mapping[str, Callable[[_Item], str]] = COLUMNS,
) -> str:
    """Renders records, or lines of measurements, as rows.

    Args:
      items: Records or lines, in the order of the rows.
      columns: Names in ``known``.
      style: A name in `STYLES`.
      known: The columns to choose from: `COLUMNS` for records, `LINE_COLUMNS` for lines.

    Returns:
      The table as text.

    Raises:
      ValueError: If a column or the style is unknown.
    """
    unknown = [name for name in columns if name not in known]
    if unknown:
        raise ValueError(f"Unknown columns {unknown}; choose from {list(known)}.")
    if style not in STYLES:
        raise ValueError(f"Unknown style {style!r}; choose one of {list(STYLES)}.")
    rows = [[known[name](item) for name in columns] for item in items]
    return tabulate.tabulate(rows, columns, tablefmt=STYLES[style], disable_numparse=True)


def by_epsilon(items: Sequence[Record], score: str | None, style: str) -> str:
    """Renders one row a method, and one column a privacy budget that any run had.

    Args:
      items: Records of one task; the last of a method and a budget counts.
      score: Name of the score that is shown; None shows the headline.
      style: A name in `STYLES`.

    Returns:
      The table; methods stand in the order of their best score.

    Raises:
      ValueError: If there are several tasks, or a record lacks the score.
    """
    tasks = sorted({record.task for record in items})
    if len(tasks) != 1:
        raise ValueError(f"The records are of tasks {tasks}; give those of one.")
    name = score or next(iter(items[0].scores))
    lacking = [record.name for record in items if name not in record.scores]
    if lacking:
        raise ValueError(f"Runs {lacking} have no score {name!r}; choose one that all have.")
    found: dict[str, dict[str, Record]] = {}
    budgets: dict[str, float] = {}
    for record in items:
        label = f"epsilon {record.config['privacy']['epsilon']}".removesuffix(".0")
        budgets[label] = float(record.config["privacy"]["epsilon"])
        found.setdefault(record.method, {})[label] = record
    labels = sorted(budgets, key=budgets.__getitem__)

    def cell(record: Record) -> str:
        return f"{_score(name, record.scores[name])}{_mark(record)}"

    rows = [
        [method, *(cell(row[x]) if x in row else "" for x in labels)]
        for method, row in sorted(
            found.items(), key=lambda item: -max(x.scores[name] for x in item[1].values())
        )
    ]
    header = [name.replace("_", " "), *labels]
    return tabulate.tabulate(rows, header, tablefmt=STYLES[style], disable_numparse=True)


def columns_of(items: Sequence[Record]) -> dict[str, Callable[[Record], str]]:
    """Gives `COLUMNS`, and a column for every score that a record has, by the score's name."""
    names = dict.fromkeys(name for record in items for name in record.scores)

    def of_score(name: str) -> Callable[[Record], str]:
        return lambda record: (
            _score(name, record.scores[name]) if name in record.scores else "not scored"
        )

    return {**COLUMNS, **{name: of_score(name) for name in names}}


def _headlines(scores: Mapping[str, float]) -> dict[str, float]:
    """The first score of every evaluation set; names are "set_metric"."""
    first: dict[str, str] = {}
    for name in scores:
        first.setdefault(name.partition("_")[0], name)
    return {name: scores[name] for name in first.values()}


def _score(name: str, value: float) -> str:
    """A score as a cell, in percent unless its name is in `NOT_PERCENT`."""
    return f"{value:.2f}" if name.endswith(NOT_PERCENT) else f"{100 * value:.1f}"


def _error(record: Record, name: str) -> str:
    """The standard error of a score as part of a cell; nothing where it is not known."""
    error = record.standard_error(name)
    return "" if error is None else f" ± {100 * error:.1f}"


def _epsilon(record: Record, value: float) -> str:
    """An epsilon as a cell."""
    return "inf" if math.isinf(value) else f"{value:.3f}{_mark(record)}"


def _mark(record: Record) -> str:
    """What a cell says of a run whose noise can be made, and taken off, again."""
    is_noised = not math.isinf(record.epsilon)
    return " (fixed seed: not private)" if is_noised and record.reproducible_noise else ""


def _bytes(count: int) -> str:
    """Bytes as a cell."""
    return f"{count / 2**20:,.1f} MiB"


def usual_columns(lines: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The columns of `LINE_COLUMNS` that lines of their kind are mostly shown with."""
    if "references" in lines[0]:
        return TEXTS
    if "median_seconds" in lines[0]:
        return BENCH
    return SLICES if any(chips(line) > 1 for line in lines) else MEMORY


def chips(line: dict[str, Any]) -> int:
    """The number of chips that share the step of a line."""
    return line.get("data", 1) * line.get("model", 1)


def _cell(text: str) -> str:
    """A text as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _mesh(line: dict[str, Any]) -> str:
    """The mesh as a cell: data by model, and whether what is trained is cut over all devices."""
    cut = ", state cut" if line.get("state") == "cut" else ""
    return f"{line.get('data', 1)} x {line.get('model', 1)}{cut}"


def _received(line: dict[str, Any]) -> int:
    """The bytes of weights and sums that one chip receives from others in a step."""
    return line.get("gathered_bytes", 0) + line.get("reduced_bytes", 0)


def _least_seconds(line: dict[str, Any], place: int) -> str:
    """One of both figures of `targets.least_seconds` as a cell."""
    found = targets.least_seconds(line["target"], line["flops"], _received(line))
    return f"{found[place]:.2f} s" if found else "unknown"


def _peak(line: dict[str, Any], field: str) -> str:
    """A line's bytes as a cell, or what the step would need where it does not fit."""
    if not line["out_of_memory"]:
        return _bytes(line[field])
    return f"does not fit ({line['needed_bytes'] / 2**30:.1f} GiB)"
