r"""Puts the table of a benchmark's lines into a Markdown page, between two marks.

    python -m benchmarks.tabulate --lines=results/bench/peers.jsonl --into=docs/benchmarks.md \
        --mark=peers

The page holds ``<!-- table: peers -->`` and ``<!-- end of table -->``.
"""

import json

from absl import flags

from benchmarks import table
from experiments import cli
from memarc import paths
from memarc.report import pages

_LINES = flags.DEFINE_string("lines", None, "File of lines of benchmarks.run.", required=True)
_INTO = flags.DEFINE_string("into", None, "Page to write into.", required=True)
_MARK = flags.DEFINE_string("mark", "peers", "Name of the table within the page.")


def main() -> int:
    """Writes the table."""
    text = paths.place(_LINES.value).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    page = paths.place(_INTO.value)
    made = table.table(lines, "markdown")
    page.write_text(
        pages.insert(page.read_text(encoding="utf-8"), _MARK.value, made), encoding="utf-8"
    )
    print(f"{len(lines)} lines -> {page}")
    return 0


if __name__ == "__main__":
    cli.run(main)
