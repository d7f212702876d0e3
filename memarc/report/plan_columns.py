"""Columns of the tables that tell, before a run, what it will take (`memarc.report.tables`)."""

from collections.abc import Callable, Mapping
from typing import Any

Columns = Mapping[str, Callable[[dict[str, Any]], str]]


def _number(name: str) -> Callable[[dict[str, Any]], str]:
    """A column of numbers with four digits."""

    def cell(line: dict[str, Any]) -> str:
        value = line[name]
        return "not covered" if value is None else f"{value:.4g}"

    return cell


def _mebibytes(name: str) -> Callable[[dict[str, Any]], str]:
    """A column of bytes."""

    def cell(line: dict[str, Any]) -> str:
        return "does not fit" if line.get(name) is None else f"{line[name] / 2**20:,.1f} MiB"

    return cell


def _seconds(name: str) -> Callable[[dict[str, Any]], str]:
    """A column of times: of the shortest bucket and of the longest, or of the one there is."""

    def cell(line: dict[str, Any]) -> str:
        return " to ".join(dict.fromkeys(f"{x:.3g}" for x in line.get(name, ())))

    return cell


def _most(line: dict[str, Any]) -> str:
    """The largest microbatch, where it was sought."""
    return str(line["largest_microbatch"] or "none") if "largest_microbatch" in line else ""


NOISE: Columns = {
    "run": lambda line: line["name"],
    "units": lambda line: f"{line['units']:,}",
    "batch": lambda line: str(line["batch"]),
    "rate": _number("sampling_rate"),
    "steps": lambda line: str(line["steps"]),
    "sigma": _number("sigma"),
    "by RDP": _number("sigma_rdp"),
    "by PLD": _number("sigma_pld"),
    "epsilon by RDP": _number("epsilon_rdp"),
    "epsilon by PLD": _number("epsilon_pld"),
    "trained": lambda line: f"{line['trained']:,}",
    "noise / batch": _number("noise_over_batch"),
    "its norm": _number("noise_norm"),
}
"""Columns of the lines that `memarc.runs.plan.noise` gives."""

COST: Columns = {
    "run": lambda line: line["name"],
    "method": lambda line: line["method"],
    "engine": lambda line: line.get("engine", ""),
    "kept for backward": _mebibytes("backward_bytes"),
    "in all": _mebibytes("whole_bytes"),
    "rows at once": lambda line: str(line.get("microbatch_size", "")),
    "at most": lambda line: _most(line),
    "seconds a step": _seconds("step_seconds"),
    "seconds": _seconds("seconds"),
    "to compile": lambda line: str(line.get("compile_seconds", "")),
}
"""Columns of the lines that `memarc.runs.forecast` gives."""

NEAR: Columns = {
    "run": lambda line: line["name"],
    "epochs": _number("epochs"),
    "batch": lambda line: str(line["batch"]),
    "steps": lambda line: str(line["steps"]),
    "epsilon": _number("epsilon"),
}
"""Columns of plans that are near a run's."""

AFFORDABLE: Columns = {
    "": lambda line: "*" if line["is_least"] else "",
    "method": lambda line: line["method"],
    "batch": lambda line: str(line["batch"]),
    "epochs": _number("epochs"),
    "steps": lambda line: str(line["steps"]),
    "seconds": lambda line: f"{line['seconds']:.3g}",
    "sigma": _number("sigma"),
    "noise / batch": _number("noise_over_batch"),
    "its norm": _number("noise_norm"),
}
"""Columns of the plans that `memarc.runs.plan.affordable` gives."""
