r"""Makes a table from records or lines, and puts it into a Markdown page between two marks.

    python -m experiments.tabulate --records='results/sst2/*/record.json' \
        --into=README.md --mark=sst2
    python -m experiments.tabulate --records='results/memory/*.jsonl' --plot=depth.png --over=layers
    python -m experiments.tabulate --config=configs/sst2.py --workdir=OUT --by_task

The page holds ``<!-- table: sst2 -->`` and ``<!-- end of table -->``; what stands between them is
replaced. Without --into the table is printed. --plot=FILE draws scores over epsilon as well, or,
with --over=memory, over the bytes kept for the backward pass; of lines, memory over the size that
--over names (of chips: the peak of one). Lines may also be texts that a run wrote
(outputs-*.jsonl).

With --config and --workdir the records are those of the config's runs that are finished, and the
others are named. --by_task makes one row a method and budget, with columns for the scores of each
task, memory and the share that is trained.

--by_epsilon makes one row a method and one column a budget; --group=method,privacy.epsilon,... one
row for all values of such fields of a config, or, with --by_epsilon, says what a row of it is.
Runs that differ in nothing but their randomness are shown as one: mean, standard deviation and
number. Others that would share a cell are refused. --scores names what is shown.
"""

import glob
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from memarc import paths
from memarc.report import groups, pages, plots, records, spreads, tables
from memarc.runs import run

_RECORDS = flags.DEFINE_string("records", None, "Pattern of record files, or of JSON lines.")
_INTO = flags.DEFINE_string("into", None, "Markdown page to write into.")
_MARK = flags.DEFINE_string("mark", "results", "Name of the table within the page.")
_PLOT = flags.DEFINE_string("plot", None, "Picture to write, such as scores.png.")
_OVER = flags.DEFINE_enum(
    "over",
    "layers",
    ("layers", "batch_size", "seq_len", "chips", "memory"),
    "The picture's x axis.",
)
_COLUMNS = flags.DEFINE_list("columns", None, "Columns of the table; those of its kind by default.")

_BY_EPSILON = flags.DEFINE_bool("by_epsilon", False, "One row a method, one column a budget.")
_BY_TASK = flags.DEFINE_bool("by_task", False, "One row a method and budget, columns by task.")
_GROUP = flags.DEFINE_list("group", None, "Fields of configs whose values a row stands for.")
_SCORES = flags.DEFINE_list("scores", [], "Scores such as test_bleu_e2e; --by_epsilon takes one.")
_ONLY = flags.DEFINE_list("only", None, "Names of the runs of --config; all by default.")


def main() -> int:
    """Prints or writes the table."""
    style = "markdown" if _INTO.value else "terminal"
    if cli.CONFIG.value is not None and _RECORDS.value:
        raise ValueError("--records and --config both name records; give one of them.")
    if cli.CONFIG.value is not None:
        table, count = _of_config(style)
    else:
        table, count = _of_files(style)
    if not _INTO.value:
        print(table)
        return 0
    page = paths.place(_INTO.value)
    page.write_text(
        pages.insert(page.read_text(encoding="utf-8"), _MARK.value, table), encoding="utf-8"
    )
    print(f"{count} rows -> {page}")
    return 0


def _of_config(style: str) -> tuple[str, int]:
    """The table of a config's runs that are finished, and how many there are; names the others."""
    found, missing = run.finished(cli.config(), cli.workdir(), _ONLY.value)
    if not found:
        raise ValueError(f"None of the config's {len(missing)} runs is in {cli.workdir()}.")
    if missing:
        runs = len(found) + len(missing)
        print(f"{len(missing)} of {runs} runs are missing: {', '.join(missing)}", file=sys.stderr)
    return _of_records(found, style), len(found)


def _of_files(style: str) -> tuple[str, int]:
    """The table of the files of --records, and how many rows there are."""
    if not _RECORDS.value:
        raise ValueError(
            "No --records was given; name files, such as 'results/*/record.json', or give --config "
            "and --workdir."
        )
    files = [Path(file) for file in sorted(glob.glob(paths.expanded(_RECORDS.value)))]
    if not files:
        raise ValueError(f"No file matches --records={_RECORDS.value!r}.")
    if all(path.suffix == ".jsonl" for path in files):
        return _of_lines(files, style)
    return _of_records(sorted(map(records.read, files), key=_order), style), len(files)


def _of_records(found: Sequence[records.Record], style: str) -> str:
    """The table of records."""
    if _PLOT.value and _OVER.value == "memory":
        score = next(iter(_SCORES.value), None)
        plots.scores_over_memory(found, score, paths.place(_PLOT.value))
    elif _PLOT.value:
        plots.scores_over_epsilon(found, paths.place(_PLOT.value))
    if _BY_TASK.value:
        return spreads.by_task(found, _SCORES.value, style)
    if _BY_EPSILON.value:
        if len(_SCORES.value) > 1:
            raise ValueError(f"--by_epsilon shows one score; --scores is {_SCORES.value}.")
        score = next(iter(_SCORES.value), None)
        rows = [name for name in _GROUP.value or ["method"] if name != groups.EPSILON]
        return spreads.by_epsilon(found, score, style, rows)
    if _GROUP.value:
        return spreads.by_fields(found, _GROUP.value, _SCORES.value, style)
    columns = _COLUMNS.value or tables.with_telling(found, tables.QUICK)
    return tables.table(found, columns, style, tables.columns_of(found))


def _of_lines(files: Sequence[Path], style: str) -> tuple[str, int]:
    """The table of lines of measurements or texts, and how many there are."""
    lines = [json.loads(text) for file in files for text in file.read_text().splitlines()]
    if _PLOT.value:
        sized = [{**line, "chips": tables.chips(line)} for line in lines]
        plots.memory_over(sized, _OVER.value, paths.place(_PLOT.value))
    columns = _COLUMNS.value or tables.usual_columns(lines)
    return tables.table(lines, columns, style, tables.LINE_COLUMNS), len(lines)


def _order(record: records.Record) -> tuple[str, float, float]:
    """By task, then from the loosest budget and the best score on."""
    return record.task, -record.epsilon, -record.headline


if __name__ == "__main__":
    cli.run(main)
