"""Writes docs/privacy_checklist.md: every known privacy bug, and what answers it.

    python -m tests.checklist
    python -m tests.checklist --check

Rows are in docs/privacy_bugs.tsv (row, severity, what went wrong, limit); tests name the rows that
they guard against by ``@pytest.mark.checklist``. A row of severity C needs a test, or a limit that
says why there is none. --check writes nothing and exits with 1 if the page is out of date.
"""

import ast
import csv
import dataclasses
from pathlib import Path

from absl import flags

from experiments import cli

_CHECK = flags.DEFINE_bool("check", False, "Compare with the page instead of writing it.")

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "privacy_checklist.md"
BUGS = ROOT / "docs" / "privacy_bugs.tsv"

_SHOWN = 3
"""Tests named for each row; the rest are counted."""


@dataclasses.dataclass(frozen=True)
class Bug:
    """One row: its name, severity (C voids the claim, T strong adversary, U utility), limit."""

    row: str
    severity: str
    what: str
    limit: str


def main() -> int:
    """Writes or compares the page."""
    text = page(read_bugs(BUGS), find_tests(ROOT / "tests"))
    if not _CHECK.value:
        PAGE.write_text(text, encoding="utf-8")
        print(f"Wrote {PAGE}.")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE} is out of date; run: python -m tests.checklist")
    return 1


def read_bugs(path: Path) -> list[Bug]:
    """The rows of a tab-separated file without a heading."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Bug(*line) for line in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def find_tests(folder: Path) -> dict[str, list[str]]:
    """Row -> tests marked with it, "file::name", in the order of files and lines."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for row in _rows_of(node):
                    name = f"{path.relative_to(folder.parent)}::{node.name}"
                    found.setdefault(row, []).append(name)
    return found


def page(bugs: list[Bug], tests: dict[str, list[str]]) -> str:
    """The page.

    Raises:
      ValueError: If a row of severity C has neither test nor limit, or a test names no row.
    """
    bare = [bug.row for bug in bugs if "C" in bug.severity and not (bug.limit or bug.row in tests)]
    strangers = sorted(set(tests) - {bug.row for bug in bugs})
    if bare or strangers:
        raise ValueError(f"Rows {bare} have neither test nor limit; rows {strangers} are unknown.")
    lines = [
        "# Privacy checklist",
        "",
        "How private training has gone wrong in public libraries, and what answers each way here.",
        "Severity: C silently voids the claim, T needs a strong adversary, U costs utility only.",
        "Made by `python -m tests.checklist` from the marks of the tests.",
        "",
        "| row | severity | what went wrong | status | tests, or the limit |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [_line(bug, tests.get(bug.row, [])) for bug in bugs]
    return "\n".join(lines) + "\n"


def _line(bug: Bug, tests: list[str]) -> str:
    status = "tested" if tests else "limit" if bug.limit else "open"
    names = "<br>".join(f"`{name}`" for name in tests[:_SHOWN])
    more = f"<br>and {len(tests) - _SHOWN} more" if len(tests) > _SHOWN else ""
    answer = "<br>".join(filter(None, [names + more, bug.limit]))
    return f"| {bug.row} | {bug.severity} | {bug.what} | {status} | {answer} |"


def _rows_of(node: ast.FunctionDef) -> list[str]:
    """Rows that a test's decorators name."""
    return [
        str(ast.literal_eval(argument))
        for call in node.decorator_list
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("mark.checklist")
        for argument in call.args
    ]


if __name__ == "__main__":
    cli.run(main)
