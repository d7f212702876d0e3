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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memarc import paths
from memarc.privacy import chained_file, ledger_entries
from memarc.privacy.ledger_entries import FILE_NAME, Budget, Entry
from memarc.privacy.mechanism import Mechanism, Spent


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
            self.entries = ledger_entries.of_lines(self._file.lines)
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
        run, plan = ledger_entries.name_of(entropy), ledger_entries.plan_of(mechanism, config)
        known = self.entries.get(run)
        _check_resumed(known, plan, done, inputs, self.path)
        others = {name: entry for name, entry in self.entries.items() if name != run}
        planned = {**others, run: Entry(plan, mechanism.steps, ())}
        _check_affordable(others, planned, self.budget, self.path)
        if not known:
            self._file.append({"kind": "run", "run": run, "plan": plan})
            known = Entry(plan, 0, ())
        if not known.makers or known.makers[-1][1] != dict(inputs):
            self._file.append({"kind": "inputs", "run": run, "inputs": dict(inputs)})
            known = ledger_entries.moved(known, dict(inputs))
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
        return ledger_entries.spent(self.entries, self.budget)

    def close(self) -> None:
        """Unlocks the ledger."""
        self._file.close()


def _check_resumed(
    known: Entry | None, plan: dict[str, Any], done: int, inputs: Mapping[str, str], path: Path
) -> None:
    """Raises ValueError unless a run goes on as it was, from no more steps than were charged."""
    if known and known.plan != plan:
        differing = sorted(key for key in plan if known.plan.get(key) != plan[key])
        raise ValueError(
            f"{path} holds a run of the same randomness whose plan differs in {differing}; noise "
            "must not be used twice. Use another seed (None draws one), or the same plan."
        )
    if done > (known.steps if known else 0):
        raise ValueError(
            f"{path} holds {known.steps if known else 0} steps of this run, its checkpoint {done}: "
            "the ledger was shortened. Restore the whole file, or begin a new run."
        )
    changed = known.differing(done, inputs) if known else {}
    if known and changed:
        told = "; ".join(f"{name} was {was}, is {now}" for name, (was, now) in changed.items())
        raise ValueError(
            f"{path}: steps {done + 1} to {known.steps} were charged, and would be made again by "
            f"another computation: {told}. Under the same noise, the difference of the two would "
            "be told. Go on with what they were made with, or begin a new run in another workdir, "
            "with noise and a charge of its own. (A run that was stopped by a signal can go on "
            "anywhere.)"
        )


def _check_affordable(
    others: dict[str, Entry], planned: dict[str, Entry], budget: Budget, path: Path
) -> None:
    """Raises ValueError if the others and a run, its planned steps counted, spend too much."""
    total = ledger_entries.spent(planned, budget)
    if total.epsilon > budget.epsilon:
        before = ledger_entries.spent(others, budget)
        raise ValueError(
            f"{path}: other runs on these data have spent epsilon {before.epsilon:.4g}; with this "
            f"one it would be {total.epsilon:.4g} by {total.accountant}, above the budget of "
            f"{budget.epsilon:g} at delta {budget.delta:g}. Plan fewer steps or more noise, or go "
            "on with the run that was begun (its checkpoint or seed)."
        )


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
