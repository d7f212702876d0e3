"""An append-only record of every noised step on one data set: what was spent, by which plan.

A line is written and on disk before the noise of its step is drawn, so a step that may have been
seen is always charged. A step that is made again after a crash draws the same batch and the same
noise; it is the same release and is charged once. Every line holds a checksum of all lines before
it, so a shortened or edited history is found out.

The file holds a hash of the rows, which can confirm a guess of the whole data set: keep it as
private as the data.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from memarc.privacy import accounting
from memarc.privacy.accounting import Spending
from memarc.privacy.mechanism import Mechanism, Spent
from memarc.privacy.sampling import PoissonSampler

FILE_NAME = "ledger.jsonl"


@dataclasses.dataclass(frozen=True)
class Budget:
    """What all runs on the data may spend together, for adding or removing one row.

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
      machines: Where steps were made: (charged before, machine), in order. Empty in ledgers that
        were begun before machines were written down.
    """

    plan: dict[str, Any]
    steps: int
    machines: tuple[tuple[int, str], ...]

    def made_on(self, done: int) -> set[str]:
        """The machines that made the charged steps after the first ``done``."""
        ends = [*(before for before, _ in self.machines[1:]), self.steps]
        return {
            machine for (_, machine), end in zip(self.machines, ends, strict=False) if end > done
        }

    @property
    def spending(self) -> Spending:
        """What the accountants read of this run."""
        plan = self.plan
        sampler = PoissonSampler(
            plan["num_examples"], plan["sampling_rate"], plan["max_batch_size"]
        )
        return Spending(sampler, plan["noise_multiplier"], self.steps)


class Ledger:
    """The ledger of one data set, in one folder, held by one process at a time."""

    def __init__(self, folder: Path, *, data: str, budget: Budget | None) -> None:
        """Opens a folder's ledger, made if absent, and locks it.

        Args:
          folder: Made if absent.
          data: Hash of the rows, whatever their order (`memarc.data`). Private.
          budget: What all runs may spend together; None takes the budget of the ledger that is
            there.

        Raises:
          ValueError: If the history is damaged, of other data or another budget, in use by
            another process, or absent while ``budget`` is None.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self._file = self.path.open("a+b", buffering=0)
        try:
            _lock(self._file, self.path)
            lines, self._chain = _read(self._file, self.path)
            if not lines:
                if budget is None:
                    raise ValueError(
                        f"There is no ledger in {folder} yet; give ledger.epsilon and ledger.delta "
                        "to begin one."
                    )
                self._append({"kind": "begin", "data": data, **dataclasses.asdict(budget)})
                lines = [{"data": data, **dataclasses.asdict(budget)}]
                _sync_folder(folder)
            self.budget = _checked_begin(lines[0], data, budget, self.path)
            self.entries = _entries(lines)
        except BaseException:
            self._file.close()
            raise
        self._run, self._most = "", 0

    def begin(
        self,
        mechanism: Mechanism,
        *,
        entropy: int,
        config: dict[str, Any],
        done: int,
        machine: str,
    ) -> None:
        """Registers a run, or goes on with one; nothing is charged yet.

        Args:
          mechanism: The mechanism of the run.
          entropy: Root entropy of the run, secret; only a hash is written.
          config: The run's whole config: equal randomness must not serve another computation.
          done: Steps that the run's checkpoint has made.
          machine: What decides how sums round. Charged steps that the checkpoint lacks are made
            again; elsewhere the same noise would hide sums that differ.

        Raises:
          ValueError: If the same randomness belongs to another plan or config, if the ledger
            holds fewer steps than the checkpoint, if steps would be made again on another machine,
            or if the budget does not suffice.
        """
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
        elsewhere = known.made_on(done) - {machine} if known else set()
        if known and elsewhere:
            raise ValueError(
                f"{self.path}: steps {done + 1} to {known.steps} were made on "
                f"{', '.join(sorted(elsewhere))}. Made again on {machine}, their sums would round "
                "otherwise under the same noise. Go on there, or begin a new run in another "
                "workdir. (A run that was stopped by a signal can go on anywhere.)"
            )
        others = [entry.spending for name, entry in self.entries.items() if name != run]
        whole = Spending(mechanism.sampler, mechanism.noise_multiplier, mechanism.steps)
        total, before = self._total([*others, whole]), self._total(others)
        if total > self.budget.epsilon:
            raise ValueError(
                f"{self.path}: other runs on these data have spent epsilon {before:.4g}; with "
                f"this one it would be {total:.4g}, above the budget of {self.budget.epsilon:g} at "
                f"delta {self.budget.delta:g}. Plan fewer steps or more noise, or go on with the "
                "run that was begun (its checkpoint or seed)."
            )
        if not known:
            self._append({"kind": "run", "run": run, "plan": plan})
            known = Entry(plan, 0, ())
        if not known.machines or known.machines[-1][1] != machine:
            self._append({"kind": "machine", "run": run, "machine": machine})
            known = _moved(known, machine)
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
            self._append({"kind": "step", "run": self._run, "step": step})
            self.entries[self._run] = dataclasses.replace(entry, steps=step)

    def spent(self) -> Spent:
        """Gives both epsilons of all runs so far."""
        return spent(self.entries, self.budget)

    def close(self) -> None:
        """Unlocks the ledger."""
        self._file.close()

    def _total(self, parts: list[Spending]) -> float:
        """Epsilon of several runs at the budget's delta, by RDP where that covers all samplers."""
        has_rdp = all(accounting.supports(part.sampler, "rdp") for part in parts)
        return accounting.composed_epsilon(
            tuple(parts), delta=self.budget.delta, accountant="rdp" if has_rdp else "pld"
        )

    def _append(self, line: dict[str, Any]) -> None:
        """Writes a line and returns when it is on disk; one that does not fit leaves no trace."""
        text, chain = _encode(line, self._chain)
        start = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, start)
            raise ValueError(
                f"{self.path} cannot be written ({error.strerror}); the step was not made. Make "
                "room and run the same command again: what was saved is kept."
            ) from error
        self._chain = chain


def read(folder: Path) -> tuple[dict[str, Entry], Budget]:
    """Reads all runs of a folder's ledger, and its budget; nothing is changed.

    Raises:
      ValueError: If there is no ledger, or its history is damaged.
    """
    path = folder / FILE_NAME
    if not path.exists():
        raise ValueError(f"There is no ledger {path}; give the folder that holds {FILE_NAME}.")
    with path.open("rb") as file:
        lines, _ = _read(file, path, mend=False)
    if not lines:
        raise ValueError(f"{path} is empty: no run was begun.")
    return _entries(lines), Budget(lines[0]["epsilon"], lines[0]["delta"])


def spent(entries: dict[str, Entry], budget: Budget) -> Spent:
    """Gives both epsilons of all runs together at the budget's delta."""
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
        "config": hashlib.sha256(_canonical(config)).hexdigest(),
    }


def name_of(entropy: int) -> str:
    """Names a run's randomness without telling it."""
    return hashlib.sha256(f"memarc ledger {entropy}".encode()).hexdigest()[:32]


def _canonical(value: Any) -> bytes:
    """The one way in which a JSON value is written for hashing."""
    return json.dumps(value, sort_keys=True).encode()


def _encode(line: dict[str, Any], chain: str) -> tuple[bytes, str]:
    """Gives a line with its checksum as bytes, and the checksum."""
    check = hashlib.sha256(chain.encode() + _canonical(line)).hexdigest()
    return _canonical({**line, "check": check}) + b"\n", check


def _read(file: Any, path: Path, *, mend: bool = True) -> tuple[list[dict[str, Any]], str]:
    """Gives all whole lines, checked, and the last checksum; a torn last line is cut off.

    A line is torn if the process died while it was written: its step drew no noise.
    """
    file.seek(0)
    whole, newline, torn = file.read().rpartition(b"\n")
    if torn and mend:
        os.truncate(path, len(whole) + len(newline))
    lines, chain = [], ""
    for number, text in enumerate(whole.splitlines() if newline else [], 1):
        try:
            line = json.loads(text)
            check = line.pop("check")
        except (ValueError, KeyError, AttributeError):
            line, check = {}, None
        chain = hashlib.sha256(chain.encode() + _canonical(line)).hexdigest()
        if check != chain:
            raise ValueError(
                f"{path}, line {number}: the history was changed or damaged there. What was spent "
                "is unknown; restore the whole file."
            )
        lines.append(line)
    return lines, chain


def _entries(lines: list[dict[str, Any]]) -> dict[str, Entry]:
    """The runs that a ledger's lines tell of."""
    found: dict[str, Entry] = {}
    for line in lines[1:]:
        run = line["run"]
        if line["kind"] == "run":
            found[run] = Entry(line["plan"], 0, ())
        elif line["kind"] == "machine":
            found[run] = _moved(found[run], line["machine"])
        else:
            found[run] = dataclasses.replace(found[run], steps=line["step"])
    return found


def _moved(entry: Entry, machine: str) -> Entry:
    """The entry of a run that goes on elsewhere."""
    return dataclasses.replace(entry, machines=(*entry.machines, (entry.steps, machine)))


def _checked_begin(first: dict[str, Any], data: str, budget: Budget | None, path: Path) -> Budget:
    """The ledger's budget, if it is of these data and this budget."""
    if first["data"] != data:
        raise ValueError(
            f"{path} is the ledger of other rows; spending on different data is not added up. Give "
            "another ledger.folder, or the rows that it was begun with."
        )
    saved = Budget(first["epsilon"], first["delta"])
    if budget not in (None, saved):
        raise ValueError(
            f"{path} has the budget {saved}, given is {budget}; a budget does not change once "
            "begun. Leave ledger.epsilon and ledger.delta at None, or give these."
        )
    return saved


def _lock(file: Any, path: Path) -> None:
    """Takes the file for this process; raises ValueError if another one holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(
            f"{path} is in use by another run; wait for it, or give another ledger.folder."
        ) from error


def _sync_folder(folder: Path) -> None:
    """Makes a new file's name survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
