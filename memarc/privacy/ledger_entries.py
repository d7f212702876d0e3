"""What a ledger's lines tell of each run: its plan, the steps charged, and what made them."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memarc.privacy import accounting, chained_file
from memarc.privacy.accounting import Spending
from memarc.privacy.mechanism import Mechanism, Spent
from memarc.privacy.sampling import PoissonSampler

FILE_NAME = "ledger.jsonl"


@dataclasses.dataclass(frozen=True)
class Budget:
    """What all runs on the data may spend together, for adding or removing one unit.

    Attributes:
      epsilon: Above 0; infinity sets no bound.
      delta: In (0, 1).
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        """Checks both numbers."""
        if not self.epsilon > 0 or not 0 < self.delta < 1:
            raise ValueError(
                f"The ledger's epsilon is {self.epsilon} and its delta {self.delta}; give an "
                "epsilon above 0 and a delta in (0, 1)."
            )


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run as the ledger knows it.

    Attributes:
      plan: Mechanism, unit, relation and config hash, as JSON values.
      steps: Highest step that was charged.
      makers: By what steps were made: (charged before, inputs by name), in order. Empty in ledgers
        that were begun before inputs were written down.
    """

    plan: dict[str, Any]
    steps: int
    makers: tuple[tuple[int, dict[str, str]], ...]

    def differing(self, done: int, inputs: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """Inputs that differ from those of the charged steps after the first ``done``.

        Returns:
          Name -> (what it was, what it is).
        """
        ends = [*(before for before, _ in self.makers[1:]), self.steps]
        made = [then for (_, then), end in zip(self.makers, ends, strict=False) if end > done]
        return {
            name: (then.get(name, "not there"), inputs.get(name, "not there"))
            for then in made
            for name in sorted(then.keys() | inputs.keys())
            if then.get(name) != inputs.get(name)
        }

    @property
    def spending(self) -> Spending:
        """What the accountants read of this run."""
        plan = self.plan
        sampler = PoissonSampler(
            plan["num_examples"], plan["sampling_rate"], plan["max_batch_size"]
        )
        return Spending(sampler, plan["noise_multiplier"], self.steps)

    @property
    def accountant(self) -> str:
        """The accountant of the run's promise; older plans took RDP wherever it covers."""
        covered = accounting.supports(self.spending.sampler, "rdp")
        return self.plan.get("accountant", "rdp" if covered else "pld")


def read(folder: Path) -> tuple[dict[str, Entry], Budget]:
    """Reads all runs of a folder's ledger, and its budget; nothing is changed.

    Raises:
      ValueError: If there is no ledger, or its history is damaged.
    """
    path = folder / FILE_NAME
    if not path.exists():
        raise ValueError(f"There is no ledger {path}; give the folder that holds {FILE_NAME}.")
    lines = chained_file.read(path)
    if not lines:
        raise ValueError(f"{path} is empty: no run was begun.")
    return of_lines(lines), Budget(lines[0]["epsilon"], lines[0]["delta"])


def spent(entries: dict[str, Entry], budget: Budget) -> Spent:
    """Gives both epsilons of all runs together at the budget's delta.

    The total is by RDP where all runs were planned so, and by PLD as soon as one was not: PLD
    covers every run, and one that PLD calibrated to the budget would not fit it by RDP.
    """
    parts = tuple(entry.spending for entry in entries.values())
    has_rdp = all(accounting.supports(part.sampler, "rdp") for part in parts)
    total = {
        name: accounting.composed_epsilon(parts, delta=budget.delta, accountant=name)
        for name in (("rdp", "pld") if has_rdp else ("pld",))
    }
    return Spent(
        steps=sum(part.steps for part in parts),
        delta=budget.delta,
        epsilon_rdp=total.get("rdp"),
        epsilon_pld=total["pld"],
        accountant="pld" if any(x.accountant == "pld" for x in entries.values()) else "rdp",
    )


def plan_of(mechanism: Mechanism, config: dict[str, Any]) -> dict[str, Any]:
    """All that decides what a step releases, as JSON values."""
    sampler, clipping = mechanism.sampler, mechanism.clipping
    return {
        "mechanism": "gaussian on clipped sums",
        "unit": mechanism.unit,
        "neighbouring": mechanism.neighbouring,
        "sampler": "poisson",
        "num_examples": sampler.num_examples,
        "sampling_rate": sampler.sampling_rate,
        "max_batch_size": sampler.max_batch_size,
        "noise_multiplier": mechanism.noise_multiplier,
        "clip_norm": clipping.clip_norm,
        "clipping": f"{clipping.rule}, {clipping.scope}",
        "divisor": mechanism.divisor,
        "steps": mechanism.steps,
        "accountant": mechanism.accountant,
        "fixed_seed": config.get("seed") is not None,
        "config": hashlib.sha256(chained_file.canonical(config)).hexdigest(),
    }


def name_of(entropy: int) -> str:
    """Names a run's randomness without telling it."""
    return hashlib.sha256(f"memarc ledger {entropy}".encode()).hexdigest()[:32]


def tie(entropy: int, fingerprint: str) -> str:
    """Tells whether rows are those that a run's randomness served, and nothing else of them."""
    return hashlib.sha256(f"memarc rows {entropy} {fingerprint}".encode()).hexdigest()[:32]


def of_lines(lines: list[dict[str, Any]]) -> dict[str, Entry]:
    """The runs that a ledger's lines tell of."""
    found: dict[str, Entry] = {}
    for line in lines[1:]:
        if line["kind"] == "rows":
            continue
        run = line["run"]
        if line["kind"] == "run":
            found[run] = Entry(line["plan"], 0, ())
        elif line["kind"] == "inputs":
            found[run] = moved(found[run], line["inputs"])
        elif line["kind"] == "machine":  # All that older ledgers say of inputs.
            found[run] = moved(found[run], {"machine": line["machine"]})
        else:
            found[run] = dataclasses.replace(found[run], steps=line["step"])
    return found


def moved(entry: Entry, inputs: dict[str, str]) -> Entry:
    """The entry of a run that goes on from other inputs."""
    return dataclasses.replace(entry, makers=(*entry.makers, (entry.steps, inputs)))
