"""Prints what a config's runs will spend, without training; or what runs have spent by a ledger.

    python -m experiments.account --config=configs/quickstart.py
    python -m experiments.account --ledger=FOLDER

With --num_examples the data are not even read.
"""

import dataclasses
from pathlib import Path

import tabulate
from absl import flags

from experiments import cli
from memarc.privacy import ledger
from memarc.runs import assemble, settings

_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", None, "Rows of the train set; else counted.")
_LEDGER = flags.DEFINE_string("ledger", None, "Folder of a ledger: what was spent so far.")

_NOTE = (
    "\nsigma: noise standard deviation over clip norm. Neighbours differ by adding or removing "
    "one unit;\nbatches are Poisson draws."
)


@dataclasses.dataclass(frozen=True)
class Account:
    """One run's plan and what it spends."""

    run: str
    sigma: float
    epsilon_rdp: float | None
    epsilon_pld: float
    delta: float
    steps: int
    sampling_rate: float
    batch: int
    clip_norm: float
    rows: int
    unit: str


def main() -> int:
    """Prints one line a run."""
    if _LEDGER.value:
        return _print_ledger(Path(_LEDGER.value))
    _print([account(run, _NUM_EXAMPLES.value) for run in settings.parse(cli.config())])
    return 0


def account(run: settings.Settings, num_examples: int | None) -> Account:
    """The plan of one run; reads the data only to count rows if their number is not given."""
    if num_examples is None:
        num_examples = int(assemble.job_of(run).load(run.task, run.data).num_examples)
    mechanism = assemble.plan(run, num_examples)
    spent = mechanism.spent(mechanism.steps)
    return Account(
        run=run.name,
        sigma=mechanism.noise_multiplier,
        epsilon_rdp=spent.epsilon_rdp,
        epsilon_pld=spent.epsilon_pld,
        delta=mechanism.delta,
        steps=mechanism.steps,
        sampling_rate=mechanism.sampling_rate,
        batch=mechanism.divisor,
        clip_norm=mechanism.clipping.clip_norm,
        rows=num_examples,
        unit=mechanism.unit,
    )


def spent_by(entries: dict[str, ledger.Entry], budget: ledger.Budget) -> list[Account]:
    """Each run of a ledger by the steps that were charged."""
    found = []
    for name, entry in entries.items():
        spent, plan = ledger.spent({name: entry}, budget), entry.plan
        found.append(
            Account(
                run=name[:8],
                sigma=plan["noise_multiplier"],
                epsilon_rdp=spent.epsilon_rdp,
                epsilon_pld=spent.epsilon_pld,
                delta=budget.delta,
                steps=entry.steps,
                sampling_rate=plan["sampling_rate"],
                batch=plan["divisor"],
                clip_norm=plan["clip_norm"],
                rows=plan["num_examples"],
                unit=plan["unit"],
            )
        )
    return found


def _print_ledger(folder: Path) -> int:
    entries, budget = ledger.read(folder)
    _print(spent_by(entries, budget))
    total = ledger.spent(entries, budget)
    by_rdp = "not covered" if total.epsilon_rdp is None else f"{total.epsilon_rdp:.6g}"
    print(
        f"\nTogether: epsilon {by_rdp} by RDP, {total.epsilon_pld:.6g} by PLD, at delta "
        f"{total.delta:g}; the budget is {budget.epsilon:g}."
    )
    return 0


def _print(accounts: list[Account]) -> None:
    names = [field.name.replace("_", " ") for field in dataclasses.fields(Account)]
    rows = [dataclasses.astuple(item) for item in accounts]
    print(tabulate.tabulate(rows, names, floatfmt=".6g", missingval="not covered"))
    print(_NOTE)


if __name__ == "__main__":
    cli.run(main)
