"""Tables in which repeats of a run are one: the mean of a score, its deviation and their number."""

import statistics
from collections.abc import Sequence

import tabulate

from memarc.report import groups, tables
from memarc.report.records import Record


def by_epsilon(
    items: Sequence[Record], score: str | None, style: str, rows: Sequence[str] = ("method",)
) -> str:
    """Renders one row a method, and one column a privacy budget that any run had.

    The accountant is a field of the rows too where it is not the same in all runs.

    Args:
      items: Records of one task. Repeats of a run are one cell: mean, deviation and number.
      score: Name of the score that is shown; None shows the headline.
      style: A name in `tables.STYLES`.
      rows: Fields (`memarc.report.groups.facts`) that a row stands for.

    Returns:
      The table; rows stand in the order of their best score.

    Raises:
      ValueError: If there are several tasks, a record lacks the score, or runs of a cell are no
        repeats of each other.
    """
    tasks = sorted({record.task for record in items})
    if len(tasks) != 1:
        raise ValueError(f"The records are of tasks {tasks}; give those of one.")
    name, rows = score or next(iter(items[0].scores)), _with_accountant(items, rows)
    found: dict[tuple[str, ...], dict[str, Sequence[Record]]] = {}
    for (*key, budget), members in groups.grouped(items, (*rows, groups.EPSILON)).items():
        found.setdefault(tuple(key), {})[budget] = members
    labels = sorted({x for row in found.values() for x in row}, key=float)
    lines = [
        [*key, *(spread(row[x], name) if x in row else "" for x in labels)]
        for key, row in sorted(
            found.items(), key=lambda item: -max(_mean(x, name) for x in item[1].values())
        )
    ]
    shown = name.replace("_", " ")
    first = [shown] if len(rows) == 1 else [*rows[:-1], f"{rows[-1]}: {shown}"]
    header = [*first, *(f"epsilon {x}" for x in labels)]
    return tabulate.tabulate(lines, header, tablefmt=tables.STYLES[style], disable_numparse=True)


def by_fields(
    items: Sequence[Record], fields: Sequence[str], scores: Sequence[str], style: str
) -> str:
    """Renders one row for each group of repeats.

    Args:
      items: Records.
      fields: Fields (`memarc.report.groups.facts`) that a row stands for, a column each.
      scores: Names of scores, a column each of mean and deviation; () shows the headlines.
      style: A name in `tables.STYLES`.

    Returns:
      The table; "n" is the number of runs of a row.

    Raises:
      ValueError: If runs of a row are no repeats of each other, or a score or field is unknown.
    """
    shown = tuple(scores) or tuple(dict.fromkeys(next(iter(x.scores)) for x in items))
    known = {name for record in items for name in record.scores}
    unknown = [name for name in shown if name not in known]
    if unknown:
        raise ValueError(f"No run has the scores {unknown}; choose from {sorted(known)}.")
    lines, fields = [], _with_accountant(items, fields)
    for key, members in groups.grouped(items, fields).items():
        cells = [
            spread(members, name) if any(name in x.scores for x in members) else ""
            for name in shown
        ]
        lines.append([*key, *cells, str(len(members))])
    header = [*fields, *(name.replace("_", " ") for name in shown), "n"]
    return tabulate.tabulate(lines, header, tablefmt=tables.STYLES[style], disable_numparse=True)


def by_task(items: Sequence[Record], scores: Sequence[str], style: str) -> str:
    """Renders one row a method and budget, and columns for the scores of each task.

    Rows are of one model's weights, which are a field of them where there are several. Beside the
    scores stand the most bytes that the step of a run of the row sets aside on its device, and the
    share of all parameters that it trains.

    Args:
      items: Records. Repeats of a run are one cell: mean, deviation and number.
      scores: Names of scores; a task has a column for each that its runs have. () shows headlines.
      style: A name in `tables.STYLES`.

    Returns:
      The table; a run that is not there leaves its cell empty.

    Raises:
      ValueError: If runs of a cell are no repeats of each other, or no run has a score.
    """
    fields = ["method", groups.EPSILON]
    fields = ["model.weights", *fields] if "model.weights" in groups.differing(items) else fields
    fields = _with_accountant(items, fields)
    found: dict[tuple[str, ...], dict[str, Sequence[Record]]] = {}
    for (*key, task), members in groups.grouped(items, (*fields, "task")).items():
        found.setdefault(tuple(key), {})[task] = members
    shown = dict.fromkeys(
        (record.task, name)
        for record in items
        for name in scores or [next(iter(record.scores))]
        if name in record.scores
    )
    unknown = [name for name in scores if name not in {x for _, x in shown}]
    if unknown:
        raise ValueError(f"No run has the scores {unknown}; leave them out.")
    lines = []
    for key, row in found.items():
        cells = [spread(row[task], name) if task in row else "" for task, name in shown]
        runs = [record for members in row.values() for record in members]
        taken = max(record.memory.get("reserved_bytes", 0) for record in runs)
        share = max(record.trainable_parameters / record.total_parameters for record in runs)
        memory = f"{taken / 2**20:,.1f} MiB" if taken else "not recorded"
        lines.append([*key, *cells, memory, f"{100 * share:.3f} %"])
    named = [f"{task} {name.replace('_', ' ')}" for task, name in shown]
    header = [*fields, *named, "training memory", "trainable"]
    return tabulate.tabulate(lines, header, tablefmt=tables.STYLES[style], disable_numparse=True)


def _with_accountant(items: Sequence[Record], fields: Sequence[str]) -> list[str]:
    """Fields, and the accountant where runs differ in it: epsilons by two cannot be compared."""
    several = len({record.accountant for record in items}) > 1
    return list(dict.fromkeys([*fields, *([groups.ACCOUNTANT] if several else [])]))


def spread(members: Sequence[Record], name: str) -> str:
    """A score of repeats as a cell: "81.2 ± 0.4 (3)", mean, standard deviation and number.

    The deviation is that of the runs, with n - 1; of one run there is the score alone.

    Raises:
      ValueError: If a run lacks the score.
    """
    mean = tables.score_cell(name, _mean(members, name))
    mark = next(filter(None, map(tables.seed_mark, members)), "")
    if len(members) == 1:
        return f"{mean}{mark}"
    deviation = statistics.stdev(record.scores[name] for record in members)
    return f"{mean} ± {tables.score_cell(name, deviation)} ({len(members)}){mark}"


def _mean(members: Sequence[Record], name: str) -> float:
    """The mean of a score that all of some runs must have."""
    lacking = [record.name for record in members if name not in record.scores]
    if lacking:
        raise ValueError(f"Runs {lacking} have no score {name!r}; choose one that all have.")
    return statistics.fmean(record.scores[name] for record in members)
