"""Pictures made from records or lines of measurements; needs matplotlib (extra "plot")."""

import importlib.util
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memarc.report.records import Record

_MARKERS = "osD^v<>"
"""Shapes of points, by budget."""


def scores_over_epsilon(records: Sequence[Record], path: Path) -> None:
    """Draws the headline score of every method over its epsilon, one line a method.

    Of several runs of a method and budget it is the mean, and a bar their standard deviation.

    Args:
      records: Runs of one task.
      path: The picture's file, whose suffix names the format.

    Raises:
      ValueError: If there is more than one task, or matplotlib is missing.
    """
    task = _one_task(records)
    figure, axes = _axes()
    # Infinity has no place on a number line, so budgets are categories in order.
    budgets = sorted({_budget(record) for record in records})
    for method in dict.fromkeys(record.method for record in records):
        found: dict[float, list[float]] = {}
        for record in records:
            if record.method == method:
                found.setdefault(_budget(record), []).append(100 * record.headline)
        there = sorted(found)
        means = [statistics.fmean(found[x]) for x in there]
        spread = [statistics.stdev(found[x]) if len(found[x]) > 1 else 0.0 for x in there]
        axes.errorbar([budgets.index(x) for x in there], means, spread, marker="o", label=method)
    axes.set_xticks(range(len(budgets)), [_label(budget) for budget in budgets])
    axes.set_xlabel("epsilon")
    axes.set_ylabel(f"{task}, {next(iter(records[0].scores)).replace('_', ' ')} (%)")
    axes.grid(alpha=0.3)
    axes.legend(ncols=2, fontsize="small")
    figure.savefig(path, dpi=150)


def scores_over_memory(records: Sequence[Record], score: str | None, path: Path) -> None:
    """Draws a score over the bytes that are kept for the backward pass, one point a record.

    Colours are methods, shapes are budgets, and a bar is the standard error where it is known.

    Args:
      records: Runs of one task.
      score: Its name, "split_metric"; None takes each record's headline.
      path: The picture's file, whose suffix names the format.

    Raises:
      ValueError: If there is more than one task, or matplotlib is missing.
    """
    task = _one_task(records)
    figure, axes = _axes()
    budgets = sorted({_budget(record) for record in records})
    methods = list(dict.fromkeys(record.method for record in records))
    for record in records:
        shown = score or next(iter(record.scores))
        bar = record.standard_error(shown)
        axes.errorbar(
            record.memory["backward_bytes"] / 2**20,
            100 * record.scores[shown],
            None if bar is None else 100 * bar,
            color=f"C{methods.index(record.method)}",
            marker=_MARKERS[budgets.index(_budget(record)) % len(_MARKERS)],
            alpha=0.8,
        )
    for place, method in enumerate(methods):
        axes.plot([], [], color=f"C{place}", marker="o", linestyle="", label=method)
    for place, budget in enumerate(budgets):
        marker, label = _MARKERS[place % len(_MARKERS)], _label(budget)
        label = label if math.isinf(budget) else f"epsilon {label}"
        axes.plot([], [], color="grey", marker=marker, linestyle="", label=label)
    axes.set_xscale("symlog", linthresh=1.0)  # A head alone keeps next to nothing.
    axes.set_xlim(left=0.0)
    axes.set_xlabel("MiB kept for the backward pass")
    axes.set_ylabel(f"{task}, {(score or next(iter(records[0].scores))).replace('_', ' ')} (%)")
    axes.grid(alpha=0.3)
    axes.legend(ncols=2, fontsize="small")
    figure.savefig(path, dpi=150)


def memory_over(lines: Sequence[dict[str, Any]], field: str, path: Path) -> None:
    """Draws memory of one device over one size, one line a method and engine.

    Args:
      lines: Lines of the memory report; steps that do not fit are left out.
      field: The size to draw over. Over "layers", "batch_size" or "seq_len" the memory is that
        beyond weights; over "chips" it is the whole peak, as weights are shared too.
      path: The picture's file, whose suffix names the format.

    Raises:
      ValueError: If the lines do not differ in the field, or matplotlib is missing.
    """
    sizes = sorted({line[field] for line in lines})
    if len(sizes) < 2:
        raise ValueError(f"The lines have {field} {sizes}; give a sweep of two sizes or more.")
    figure, axes = _axes()
    shown = "peak_bytes" if field == "chips" else "beyond_arguments_bytes"
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        if not line["out_of_memory"]:
            point = line[field], line[shown] / 2**20
            curves.setdefault(f"{line['method']} ({line['engine']})", []).append(point)
    for label, points in curves.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=label)
    axes.set_yscale("log")
    axes.set_xlabel(field.replace("_", " "))
    target = ":".join(lines[0]["target"].split(":")[:2])  # Slices differ in their topology.
    axes.set_ylabel(f"MiB {'of one chip' if field == 'chips' else 'beyond weights'}, {target}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def learning_curves(lines: Sequence[Mapping[str, Any]], noise_norm: float, path: Path) -> None:
    """Draws what a run's log publishes: noised quantities, and scores of public rows.

    Args:
      lines: The log's; of a run that was killed a step may be there twice, and the last counts.
      noise_norm: The norm that noise alone would nearly have, gradient units.
      path: The picture's file, whose suffix names the format.

    Raises:
      ValueError: If no step was logged, or matplotlib is missing.
    """
    steps = {line["step"]: line for line in lines if line["event"] == "step"}
    scored = {line["step"]: line for line in lines if line["event"] == "validation"}
    if not steps:
        raise ValueError("The log holds no step; give that of a run that was trained.")
    figure, axes = _axes()
    for name in ("noised_gradient_norm", "update_norm"):
        points = [(step, line[name]) for step, line in sorted(steps.items()) if name in line]
        axes.plot(*zip(*points, strict=True), marker=".", label=name.replace("_", " "))
    if noise_norm:
        axes.axhline(noise_norm, color="grey", linestyle=":", label="noise alone")
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if scored:
        name = next(key for key in next(iter(scored.values())) if key.startswith("validation_"))
        beside = axes.twinx()
        points = [(step, line[name]) for step, line in sorted(scored.items())]
        beside.plot(*zip(*points, strict=True), color="black", marker="o", markersize=3)
        beside.set_ylabel(f"{name.replace('_', ' ')} (black)")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def membership(curves: Mapping[str, tuple[Any, Any]], path: Path) -> None:
    """Draws true over false positive rates of membership inference, both axes logarithmic.

    Args:
      curves: Kind of canary -> (false positive rates, true positive rates).
      path: The picture's file, whose suffix names the format.

    Raises:
      ValueError: If matplotlib is missing.
    """
    figure, axes = _axes()
    for kind, (false, true) in curves.items():
        axes.plot(false, true, label=kind, drawstyle="steps-post")
    axes.plot([1e-3, 1], [1e-3, 1], color="grey", linestyle=":", label="chance")
    axes.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1))
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def audits(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the lower bounds that audits found, a bar a mechanism, and what was proven.

    Args:
      lines: Lines of audits: "name", "proven_epsilon", "trajectory_epsilon", "released_epsilon".
      path: The picture's file, whose suffix names the format.

    Raises:
      ValueError: If there are no lines, or matplotlib is missing.
    """
    if not lines:
        raise ValueError("There are no audits to draw; give at least one line.")
    figure, axes = _axes()
    places = range(len(lines))
    for shift, seen in ((-0.2, "trajectory"), (0.2, "released")):
        bounds = [line[f"{seen}_epsilon"] for line in lines]
        label = {"trajectory": "noised gradients of all steps", "released": "released parameters"}
        axes.barh([place + shift for place in places], bounds, height=0.38, label=label[seen])
    proven = max(line["proven_epsilon"] for line in lines)
    axes.axvline(proven, color="black", linestyle="--", label=f"proven: {proven:.3g}")
    axes.set_yticks(places, [line["name"] for line in lines])
    axes.invert_yaxis()
    axes.set_xlabel("epsilon is at least")
    axes.grid(alpha=0.3, axis="x")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def _one_task(records: Sequence[Record]) -> str:
    """The task of all records; raises ValueError if there are several."""
    tasks = sorted({record.task for record in records})
    if len(tasks) != 1:
        raise ValueError(f"The records are of the tasks {tasks}; give those of one task.")
    return tasks[0]


def is_installed() -> bool:
    """Whether there is matplotlib."""
    return importlib.util.find_spec("matplotlib") is not None


def _axes() -> tuple[Any, Any]:
    """An empty figure and its axes."""
    try:
        from matplotlib.figure import Figure  # Optional, and slow to import.
    except ImportError as error:
        raise ValueError("Pictures need matplotlib; run: pip install 'memarc[plot]'") from error
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    return figure, figure.subplots()


def _budget(record: Record) -> float:
    """Rounds epsilon to two digits, so that runs calibrated to one budget share a place."""
    return record.epsilon if math.isinf(record.epsilon) else round(record.epsilon, 2)


def _label(budget: float) -> str:
    """The words for a budget on the axis."""
    return "no noise" if math.isinf(budget) else f"{budget:g}"
