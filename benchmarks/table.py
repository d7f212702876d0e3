"""The table of a benchmark's lines: one row a peer, workload, method and engine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memarc.report import tables

Line = Mapping[str, Any]

_COLUMNS: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "workload": lambda row: row["workload"] + (" (tiny)" if row["is_tiny"] else ""),
    "method": lambda row: row["method"],
    "peer": lambda row: row["peer"] + (f" ({row['engine']})" if row.get("engine") else ""),
    "plain": lambda row: _milliseconds(row, "plain_seconds"),
    "private": lambda row: _milliseconds(row, "median_seconds"),
    "over plain": lambda row: f"{row['over_plain']:.2f}" if "over_plain" in row else "",
    "plain, CPU": lambda row: _milliseconds(row, "plain_cpu_seconds"),
    "private, CPU": lambda row: _milliseconds(row, "median_cpu_seconds"),
    "over plain, CPU": lambda row: (
        f"{row['cpu_over_plain']:.2f}" if "cpu_over_plain" in row else ""
    ),
    "plain peak": lambda row: _peak(row, "plain_bytes"),
    "private peak": lambda row: _peak(row, "peak_bytes"),
    "error of the sum": lambda row: _error(row),
    "why not": lambda row: row.get("skipped", ""),
}


def table(lines: Sequence[Line], style: str) -> str:
    """Renders lines of `benchmarks.run`, and below them machine, versions and dates.

    Args:
      lines: In the order of the rows.
      style: A name of `memarc.report.tables.STYLES`.
    """
    rows, plain = [], {}
    for line in lines:
        key = line["workload"], line["method"], line["peer"]
        if line["step"] == "plain":
            plain[key] = line
            continue
        of = plain.get(key, {})
        rows.append(
            {
                **line,
                "plain_seconds": of.get("median_seconds"),
                "plain_cpu_seconds": of.get("median_cpu_seconds"),
                "plain_bytes": of.get("peak_bytes"),
            }
        )
    return f"{tables.table(rows, tuple(_COLUMNS), style, _COLUMNS)}\n\n{_made_with(lines)}"


def _made_with(lines: Sequence[Line]) -> str:
    """Machines, dates and versions, each once."""
    machines = sorted({line["device"] for line in lines if line["device"]})
    dates = sorted({line["date"] for line in lines})
    versions = sorted(
        {f"{x} {y}" for line in lines for x, y in (line["peer_versions"] or {}).items()}
    )
    return f"Machine: {', '.join(machines)}. Date: {', '.join(dates)}. {', '.join(versions)}."


def _milliseconds(row: Mapping[str, Any], field: str) -> str:
    seconds = row.get(field)
    return "" if seconds is None else f"{1e3 * seconds:,.0f} ms"


def _peak(row: Mapping[str, Any], field: str) -> str:
    found = row.get(field)
    return "" if found is None else f"{found / 2**20:,.0f} MiB"


def _error(row: Mapping[str, Any]) -> str:
    found = row.get("clipped_sum_error")
    return "" if found is None else f"{found:.1e}"
