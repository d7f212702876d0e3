"""An append-only record of every noised step on one data set: what was spent, by which plan.

A line is written and on disk before the noise of its step is drawn, so a step that may have been
seen is always charged. A step that is made again after a crash draws the same batch and the same
noise; it is the same release and is charged once, if the same computation makes it. Every line
holds a checksum of all lines before it, so an edited history is found out; that lines are missing
at its end shows where a checkpoint, or the record of a run, knows of more.

The file holds hashes of the rows, which can confirm a guess of the whole data set: it is made for
its owner's eyes alone.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memarc import paths
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


class Ledger:
    """The ledger of one data set, in one folder, held by one process at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        data: str,
        budget: Budget | None,
        dataset: str | None = None,
        unit: str = "row",
    ) -> None:
        """Opens a folder's ledger, made if absent, and locks it.

        Args:
          folder: Made if absent, for its owner alone.
          data: Hash of the rows as they were read, whatever their order (`memarc.data`). Private.
          budget: What all runs may spend together; None takes the budget of the ledger that is
            there.
          dataset: The user's name for the people whose rows these are. Other rows under the same
            name are of the same people, and what was spent on all of them adds up.
          unit: What is added or removed between neighbouring data sets, "row", "input", or a
            person with the column that names people. A ledger is about one unit.

        Raises:
          ValueError: If the history is damaged, of other data, another unit or another budget, in
            use by another process, or absent while ``budget`` is None.
        """
        folder = paths.identity(folder)
        if not folder.exists():
            paths.make_private_folder(folder)
        self.path = folder / FILE_NAME
        self._file = chained_file.ChainedFile(self.path)
        try:
            if not self._file.lines:
                self._begin(data, dataset, budget, unit)
            _check_unit(self._file.lines[0], unit, self.path)
            if data not in _rows_of(self._file.lines):
                _check_people(self._file.lines[0], dataset, self.path)
                self._file.append({"kind": "rows", "data": data})
            self.budget = _checked_budget(self._file.lines[0], budget, self.path)
            self.entries = _entries(self._file.lines)
        except BaseException:
            self._file.close()
            raise
        self._run, self._most = "", 0

    def _begin(self, data: str, dataset: str | None, budget: Budget | None, unit: str) -> None:
        """Writes the first line."""
        if budget is None:
            raise ValueError(
                f"There is no ledger in {self.path.parent} yet; give ledger.epsilon and "
                "ledger.delta to begin one."
            )
        named = {"dataset": dataset} if dataset else {}
        about = {"data": data, **named, "unit": unit}
        self._file.append({"kind": "begin", **about, **dataclasses.asdict(budget)})

    def begin(
        self,
        mechanism: Mechanism,
        *,
        entropy: int,
        config: dict[str, Any],
        done: int,
        inputs: Mapping[str, str],
    ) -> None:
        """Registers a run, or goes on with one; nothing is charged yet.

        Args:
          mechanism: The mechanism of the run.
          entropy: Root entropy of the run, secret; only a hash is written.
          config: The run's whole config: equal randomness must not serve another computation.
          done: Steps that the run's checkpoint has made.
          inputs: All else that decides the sums of a step, by name (`memarc.runs.inputs`). Charged
            steps that the checkpoint lacks are made again; by another computation the same noise
            would hide sums that differ.

        Raises:
          ValueError: If the same randomness belongs to another plan or config, if the ledger
            holds fewer steps than the checkpoint, if steps would be made again from other inputs,
            if the budget's delta is not below one over the number of rows, or if the budget does
            not suffice.
        """
        _check_delta(self.budget, mechanism.sampler.num_examples, self.path)
        run, plan = name_of(entropy), _plan(mechanism, config)
        known = self.entries.get(run)
        if known and known.plan != plan:
            differing = sorted(key for key in plan if known.plan.get(key) != plan[key])
            raise ValueError(
                f"{self.path} holds a run of the same randomness whose plan differs in "
                f"{differing}; noise must not be used twice. Use another seed (None draws one), "
                "or the same plan."
            )
        if done > (known.steps if known else 0):
            raise ValueError(
                f"{self.path} holds {known.steps if known else 0} steps of this run, its "
                f"checkpoint {done}: the ledger was shortened. Restore the whole file, or begin a "
                "new run."
            )
        changed = known.differing(done, inputs) if known else {}
        if known and changed:
            told = "; ".join(f"{name} was {was}, is {now}" for name, (was, now) in changed.items())
            raise ValueError(
                f"{self.path}: steps {done + 1} to {known.steps} were charged, and would be made "
                f"again by another computation: {told}. Under the same noise, the difference of "
                "the two would be told. Go on with what they were made with, or begin a new run "
                "in another workdir, with noise and a charge of its own. (A run that was stopped "
                "by a signal can go on anywhere.)"
            )
        others = {name: entry for name, entry in self.entries.items() if name != run}
        before = spent(others, self.budget)
        total = spent({**others, run: Entry(plan, mechanism.steps, ())}, self.budget)
        if total.epsilon > self.budget.epsilon:
            raise ValueError(
                f"{self.path}: other runs on these data have spent epsilon {before.epsilon:.4g}; "
                f"with this one it would be {total.epsilon:.4g} by {total.accountant}, above the "
                f"budget of {self.budget.epsilon:g} at delta {self.budget.delta:g}. Plan fewer "
                "steps or more noise, or go on with the run that was begun (its checkpoint or "
                "seed)."
            )
        if not known:
            self._file.append({"kind": "run", "run": run, "plan": plan})
            known = Entry(plan, 0, ())
        if not known.makers or known.makers[-1][1] != dict(inputs):
            self._file.append({"kind": "inputs", "run": run, "inputs": dict(inputs)})
            known = _moved(known, dict(inputs))
        self.entries[run] = known
        self._run, self._most = run, mechanism.steps

    def charge(self, step: int) -> None:
        """Writes that a step's noise is about to be drawn; returns when it is on disk.

        Args:
          step: Number of updates made when the step is done, from 1. One that was charged before
            is made again after a crash, and costs nothing.

        Raises:
          ValueError: If ``begin`` was not called, or the step is beyond the plan or skips one.
        """
        entry = self.entries.get(self._run)
        if entry is None or not 1 <= step <= min(self._most, entry.steps + 1):
            raise ValueError(f"Step {step} cannot be charged to run {self._run!r} of {self.path}.")
        if step > entry.steps:
            self._file.append({"kind": "step", "run": self._run, "step": step})
            self.entries[self._run] = dataclasses.replace(entry, steps=step)

    def spent(self) -> Spent:
        """Gives both epsilons of all runs so far."""
        return spent(self.entries, self.budget)

    def close(self) -> None:
        """Unlocks the ledger."""
        self._file.close()


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
    return _entries(lines), Budget(lines[0]["epsilon"], lines[0]["delta"])


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


def _plan(mechanism: Mechanism, config: dict[str, Any]) -> dict[str, Any]:
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


def _entries(lines: list[dict[str, Any]]) -> dict[str, Entry]:
    """The runs that a ledger's lines tell of."""
    found: dict[str, Entry] = {}
    for line in lines[1:]:
        if line["kind"] == "rows":
            continue
        run = line["run"]
        if line["kind"] == "run":
            found[run] = Entry(line["plan"], 0, ())
        elif line["kind"] == "inputs":
            found[run] = _moved(found[run], line["inputs"])
        elif line["kind"] == "machine":  # All that older ledgers say of inputs.
            found[run] = _moved(found[run], {"machine": line["machine"]})
        else:
            found[run] = dataclasses.replace(found[run], steps=line["step"])
    return found


def _moved(entry: Entry, inputs: dict[str, str]) -> Entry:
    """The entry of a run that goes on from other inputs."""
    return dataclasses.replace(entry, makers=(*entry.makers, (entry.steps, inputs)))


def _rows_of(lines: list[chained_file.Line]) -> set[str]:
    """The hashes of all rows that a ledger was opened with."""
    return {line["data"] for line in lines if line["kind"] in ("begin", "rows")}


def _check_unit(first: chained_file.Line, unit: str, path: Path) -> None:
    """Raises ValueError unless a ledger's runs protect the same unit, which alone they can total.

    Older ledgers do not say, and are of rows or inputs.
    """
    found = first.get("unit")
    if unit == found or (found is None and unit in ("row", "input")):
        return
    raise ValueError(
        f"{path} adds up what is spent on units of {found or 'row'!r}; the run's unit is {unit!r}. "
        "A total over both would bound neither: whoever owns k rows has k times the epsilon of a "
        "run on rows. Begin a ledger of its own (ledger.folder) for this unit, and state both."
    )


def _check_people(first: chained_file.Line, dataset: str | None, path: Path) -> None:
    """Raises ValueError unless rows that a ledger has not seen are of the people it is about."""
    named = first.get("dataset")
    if named is not None and dataset == named:
        return
    about = f"of the data set {named!r}" if named else "of a data set without a name"
    given = f"{dataset!r}" if dataset else "None"
    raise ValueError(
        f"{path} is {about}, and has not seen these rows; ledger.dataset is {given}. If they are "
        "of the same people (rows were added, removed or changed), what is spent on both adds up: "
        f"give ledger.dataset={named or 'NAME'}"
        + ("" if named else ", and begin the ledger with it")
        + ". Only the data of other people have a ledger of their own."
    )


def _check_delta(budget: Budget, rows: int, path: Path) -> None:
    """Raises ValueError for a delta that would let one row of so many be published as it is."""
    if not budget.delta < 1 / rows:
        raise ValueError(
            f"{path} has a budget of delta {budget.delta:g}, and the run {rows} rows; a delta of "
            f"1 / {rows} or more is kept by publishing a row. Begin a ledger whose ledger.delta is "
            f"below {1 / rows:.3g}; leave out of its epsilon what this one has spent."
        )


def _checked_budget(first: chained_file.Line, budget: Budget | None, path: Path) -> Budget:
    """The ledger's budget, if it is the one that is given."""
    saved = Budget(first["epsilon"], first["delta"])
    if budget not in (None, saved):
        raise ValueError(
            f"{path} has the budget {saved}, given is {budget}; a budget does not change once "
            "begun. Leave ledger.epsilon and ledger.delta at None, or give these."
        )
    return saved
