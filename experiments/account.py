"""Prints what a config's runs will spend, without training; or what runs have spent by a ledger.

    python -m experiments.account --config=configs/quickstart.py
    python -m experiments.account --ledger=FOLDER
    python -m experiments.account --statement=OUT

Train rows are counted once for all runs on the same data; with --num_examples they are not read.
--statement writes privacy_statement.md and .json into the folder of a finished run
(memarc/runs/statement.py); --audit=DIR, the folder of an audit of the same run, adds what it found.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tabulate
from absl import flags

from experiments import cli
from memarc import paths
from memarc.privacy import ledger_entries
from memarc.runs import fields, statement
from memarc.runs.account import Account, planned, spent_by
from memarc.runs.parse import parse

_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", None, "Rows of the train set; else counted.")
_ONLY = flags.DEFINE_list("only", None, "Names of the config's runs; all by default.")
_LEDGER = flags.DEFINE_string("ledger", None, "Folder of a ledger: what was spent so far.")

_STATEMENT = flags.DEFINE_string("statement", None, "Folder of a finished run.")
_AUDIT = flags.DEFINE_string("audit", None, "Folder of an audit of the run of --statement.")

_NOTE = (
    "\nsigma: noise standard deviation over clip norm. Neighbours differ by adding or removing "
    "one unit;\nbatches are Poisson draws."
)


def main() -> int:
    """Prints one line a run."""
    if _LEDGER.value:
        return _print_ledger(paths.place(_LEDGER.value))
    if _STATEMENT.value:
        audit = paths.place(_AUDIT.value) if _AUDIT.value else None
        print(*statement.write(paths.place(_STATEMENT.value), audit), sep="\n")
        return 0
    _print(planned(parse(cli.config(), _ONLY.value), _NUM_EXAMPLES.value))
    return 0


def _print_ledger(folder: Path) -> int:
    """Prints what each run of a ledger has spent, and all of them together."""
    entries, budget = ledger_entries.read(folder)
    _print(spent_by(entries, budget))
    total = ledger_entries.spent(entries, budget)
    by_rdp = "not covered" if total.epsilon_rdp is None else f"{total.epsilon_rdp:.6g}"
    print(
        f"\nTogether: epsilon {by_rdp} by RDP, {total.epsilon_pld:.6g} by PLD, at delta "
        f"{total.delta:g}; the budget is {budget.epsilon:g} by {total.accountant.upper()}."
    )
    return 0


def _print(accounts: Sequence[Account]) -> None:
    """Prints a table, one row an account."""
    names = [field.name.replace("_", " ") for field in dataclasses.fields(Account)]
    rows = [dataclasses.astuple(item) for item in accounts]
    print(tabulate.tabulate(rows, names, floatfmt=".6g", missingval="not covered"))
    print(_NOTE)


if __name__ == "__main__":
    cli.run(main, fields.text)
