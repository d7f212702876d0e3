"""What a run will spend by its plan, without training; and what runs have spent by a ledger."""

import dataclasses
from collections.abc import Mapping, Sequence

from memarc.data import load
from memarc.data.config import DataConfig
from memarc.privacy import ledger_entries
from memarc.privacy.ledger_entries import Budget, Entry
from memarc.runs import assemble
from memarc.runs.settings import Settings

_SEEDS: Mapping[bool | None, str] = {
    False: "fresh",
    True: "fixed: not private",
    None: "unknown",
}
"""Whether a run's seed is fixed -> how it is told."""


@dataclasses.dataclass(frozen=True)
class Account:
    """One run's plan and what it spends, for adding or removing one unit.

    Attributes:
      run: Name of the run.
      sigma: Standard deviation of the noise over the clip norm.
      accountant: Whose epsilon is promised, "rdp" or "pld"; the other stands beside it.
      epsilon_rdp: Epsilon by Renyi accounting; None where that does not cover the draws.
      epsilon_pld: Epsilon by privacy loss distributions.
      delta: The delta of both.
      steps: Noised updates.
      sampling_rate: Chance of each example to join a batch.
      batch: Mean size of a batch, also the divisor of the sum.
      clip_norm: Bound on the norm of an example's gradient.
      units: Examples of the train set, each a unit.
      unit: What one example is.
      seed: "fresh" randomness, or "fixed: not private", as who knows the seed can take the noise
        off; "unknown" in older ledgers.
    """

    run: str
    sigma: float
    accountant: str
    epsilon_rdp: float | None
    epsilon_pld: float
    delta: float
    steps: int
    sampling_rate: float
    batch: int
    clip_norm: float
    units: int
    unit: str
    seed: str


def planned(runs: Sequence[Settings], num_examples: int | None) -> list[Account]:
    """The plans of runs.

    Args:
      runs: The runs.
      num_examples: Examples of the train set; None counts them, once for runs of the same data.

    Raises:
      ValueError: If a plan cannot keep its promise, or the data cannot be read.
    """
    units: dict[tuple[str, DataConfig], int] = {}
    for source in dict.fromkeys((run.task, run.data_to_load) for run in runs):
        units[source] = load.count(*source) if num_examples is None else num_examples
    return [_planned(run, units[run.task, run.data_to_load]) for run in runs]


def _planned(run: Settings, num_examples: int) -> Account:
    """The plan of one run."""
    mechanism = assemble.plan(run, num_examples)
    spent = mechanism.spent(mechanism.steps)
    return Account(
        run=run.name,
        sigma=mechanism.noise_multiplier,
        accountant=spent.accountant,
        epsilon_rdp=spent.epsilon_rdp,
        epsilon_pld=spent.epsilon_pld,
        delta=mechanism.delta,
        steps=mechanism.steps,
        sampling_rate=mechanism.sampling_rate,
        batch=mechanism.divisor,
        clip_norm=mechanism.clipping.clip_norm,
        units=num_examples,
        unit=mechanism.unit,
        seed=_SEEDS[run.seed is not None],
    )


def spent_by(entries: Mapping[str, Entry], budget: Budget) -> list[Account]:
    """Each run of a ledger by the steps that were charged (`memarc.privacy.ledger_entries`)."""
    found = []
    for name, entry in entries.items():
        spent, plan = ledger_entries.spent({name: entry}, budget), entry.plan
        found.append(
            Account(
                run=name[:8],
                sigma=plan["noise_multiplier"],
                accountant=spent.accountant,
                epsilon_rdp=spent.epsilon_rdp,
                epsilon_pld=spent.epsilon_pld,
                delta=budget.delta,
                steps=entry.steps,
                sampling_rate=plan["sampling_rate"],
                batch=plan["divisor"],
                clip_norm=plan["clip_norm"],
                units=plan["num_examples"],
                unit=plan["unit"],
                seed=_SEEDS[plan.get("fixed_seed")],
            )
        )
    return found
