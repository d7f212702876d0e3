"""Tables made from records, or from lines of measurements, for a terminal or a Markdown page."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import tabulate

from memarc.report import groups, targets
from memarc.report.records import Record

NOT_PERCENT = ("nist", "cider", "perplexity", "rmse")
"""How names of scores end that are shown as they are; all other scores are shares of 1."""

COLUMNS: Mapping[str, Callable[[Record], str]] = {
    "run": lambda record: record.name,
    "task": lambda record: record.task,
    "method": lambda record: record.method,
    "score": lambda record: _told(record, lambda name: ""),
    "scores": lambda record: _told(record, lambda name: _error(record, name)),
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

_IDENTITY = ("task", "method", groups.EPSILON, groups.ACCOUNTANT)
"""Fields that usual tables show, exactly or as spent."""

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

_SIZES = {"batch_size": "batch", "seq_len": "tokens", "layers": "layers"}
"""What `experiments.largest` looks for, as the columns of a line call it."""

LINE_COLUMNS: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "method": lambda line: line["method"],
    "engine": lambda line: line["engine"],
    "target": lambda line: line["target"],
    "clipping": lambda line: line["clipping_scope"],
    "layers": lambda line: str(line["layers"]),
    "batch": lambda line: str(line["batch_size"]),
    "tokens": lambda line: str(line["seq_len"]),
    "rows at once": lambda line: str(line["microbatch_size"]),
    "beyond weights": lambda line: _peak(line, "beyond_arguments_bytes"),
    "whole peak": lambda line: _peak(line, "peak_bytes"),
    "whole set aside": lambda line: _peak(line, "reserved_bytes"),
    "measured peak": lambda line: _bytes(line["measured_peak_bytes"]),
    "work": lambda line: f"{line['flops'] / 1e12:.2f} TFLOP",
    "frozen weights": lambda line: line.get("storage_dtype", ""),
    "reduction": lambda line: str(line["options"].get("reduction", "")),
    "chips": lambda line: str(chips(line)),
    "mesh": lambda line: _mesh(line),
    "received": lambda line: f"{_received(line) / 2**30:.1f} GiB",
    "work at peak": lambda line: _least_seconds(line, 0),
    "received at peak": lambda line: _least_seconds(line, 1),
    "looked for": lambda line: _SIZES[line["largest"]],
    "to fit": lambda line: f"{line['bytes_limit'] / 2**30:.1f} GiB",
    "milliseconds": lambda line: f"{1e3 * line['median_seconds']:.0f}",
    "share of peak": lambda line: f"{100 * line['utilisation']:.0f} %",
    "over plain": lambda line: f"{line['over_plain']:.2f}",
    "rows a second": lambda line: f"{line['examples_per_second']:.1f}",
    "relative error": lambda line: str(line["relative_error"]),
    "cosine": lambda line: f"{line['cosine']:.4f}",
    "worst leaf": lambda line: _largest(line["errors_by_leaf"]),
    "moved by": lambda line: str(line["adapter_size"]),
    "allowance": lambda line: str(line["allowance"]),
    "widest allowance": lambda line: _largest(line["allowances_by_leaf"]),
    "input": lambda line: _cell(line["input"]),
    "output": lambda line: _cell(line["output"]),
    "a reference": lambda line: _cell(line["references"][0]),
}

MEMORY = ("method", "engine", "layers", "beyond weights", "whole peak", "whole set aside", "work")
LARGEST = ("method", "looked for", "batch", "tokens", "layers", "to fit", "whole peak", "work")
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

PRECISION = (
    "method",
    "relative error",
    "cosine",
    "worst leaf",
    "moved by",
    "allowance",
    "widest allowance",
)

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


def with_telling(items: Sequence[Record], columns: Sequence[str]) -> tuple[str, ...]:
    """Usual columns, and those without which some rows would read alike.

    They are the fields that tell apart runs of one task, method and epsilon, the accountant where
    there are several, and the runs' names where there are repeats.
    """
    fields = groups.telling(items)
    accountants = {record.accountant for record in items}
    found = list(columns)
    place = found.index("method") + 1
    found[place:place] = fields
    if len(accountants) > 1:
        found.insert(found.index("epsilon") + 1, "accountant")
    stated = [tuple(groups.facts(x).get(f, "") for f in _IDENTITY + tuple(fields)) for x in items]
    return ("run", *found) if len(set(stated)) < len(stated) else tuple(found)


def columns_of(items: Sequence[Record]) -> dict[str, Callable[[Record], str]]:
    """Gives `COLUMNS`, and a column for every score and every field of a config, by its name."""
    names = dict.fromkeys(name for record in items for name in record.scores)
    fields = dict.fromkeys(name for record in items for name in groups.facts(record))

    def of_score(name: str) -> Callable[[Record], str]:
        return lambda record: (
            score_cell(name, record.scores[name]) if name in record.scores else "not scored"
        )

    def of_field(name: str) -> Callable[[Record], str]:
        return lambda record: groups.facts(record).get(name, "")

    return {
        **{name: of_field(name) for name in fields},
        **COLUMNS,
        **{name: of_score(name) for name in names},
    }


def _headlines(scores: Mapping[str, float]) -> dict[str, float]:
    """The first score of every evaluation set; names are "set_metric"."""
    first: dict[str, str] = {}
    for name in scores:
        first.setdefault(name.partition("_")[0], name)
    return {name: scores[name] for name in first.values()}


def _told(record: Record, error: Callable[[str], str]) -> str:
    """The first score of every evaluation set as a cell, with rows that have no prediction."""
    found = []
    for name, value in _headlines(record.scores).items():
        lost = record.scores.get(f"{name.partition('_')[0]}_undefined", 0.0)
        undefined = f"; {100 * lost:.2g} % of rows undefined" if lost else ""
        told = f"{score_cell(name, value)}{error(name)}"
        found.append(f"{told} ({name.replace('_', ' ')}{undefined})")
    return ", ".join(found)


def score_cell(name: str, value: float) -> str:
    """A score as a cell, in percent unless its name is in `NOT_PERCENT`."""
    return f"{value:.2f}" if name.endswith(NOT_PERCENT) else f"{100 * value:.1f}"


def _error(record: Record, name: str) -> str:
    """The standard error of a score as part of a cell; nothing where it is not known."""
    error = record.standard_error(name)
    return "" if error is None else f" ± {score_cell(name, error)}"


def _epsilon(record: Record, value: float) -> str:
    """An epsilon as a cell."""
    return "inf" if math.isinf(value) else f"{value:.3f}{seed_mark(record)}"


def seed_mark(record: Record) -> str:
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
    if "cosine" in lines[0]:
        return PRECISION
    if "median_seconds" in lines[0]:
        return BENCH
    if "largest" in lines[0]:
        return LARGEST
    return SLICES if any(chips(line) > 1 for line in lines) else MEMORY


def chips(line: dict[str, Any]) -> int:
    """The number of chips that share the step of a line."""
    return line.get("data", 1) * line.get("model", 1)


def _cell(text: str) -> str:
    """A text as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _largest(by_leaf: dict[str, float]) -> str:
    """The leaf of the largest number, and the number, as a cell."""
    name = max(by_leaf, key=by_leaf.__getitem__)
    return f"{name} {by_leaf[name]}"


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
