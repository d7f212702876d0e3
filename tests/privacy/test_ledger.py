"""Every noised step is written down before it is made, once, and the history cannot be bent."""

import dataclasses
import errno
import json
import os

import pytest

from memarc.privacy import accounting
from memarc.privacy.ledger import Ledger
from memarc.privacy.ledger_entries import FILE_NAME, Budget, read, spent
from memarc.privacy.mechanism import Mechanism, PrivacyConfig

ROWS, STEPS, DELTA = 37, 5, 1e-3
BUDGET = Budget(8.0, DELTA)
CONFIG = {"method": "lora"}


def plan(**changes) -> Mechanism:
    config = PrivacyConfig(
        epsilon=8.0,
        delta=DELTA,
        clip_norm=0.5,
        clipping="abadi",
        clipping_scope="flat",
        expected_batch_size=6,
        max_batch_size=None,
        engine="vmap",
        microbatch_size=2,
        physical_batch_size=4,
        noise_multiplier=2.0,
        accountant="rdp",
    )
    config = dataclasses.replace(config, **changes)
    return Mechanism.create(config, num_examples=ROWS, steps=STEPS, unit="one row")


class Folder:
    """Opens, uses and closes the ledger of one folder."""

    def __init__(self, path):
        self.path = path

    def run(
        self,
        steps,
        mechanism=None,
        *,
        entropy=11,
        done=0,
        budget=BUDGET,
        config=CONFIG,
        machine="A",
    ):
        ledger = Ledger(self.path, data="rows", budget=budget)
        try:
            ledger.begin(
                mechanism or plan(),
                entropy=entropy,
                config=config,
                done=done,
                inputs={"code": "1", "machine": machine},
            )
            for step in steps:
                ledger.charge(step)
            return ledger.spent()
        finally:
            ledger.close()

    def lines(self):
        return (self.path / FILE_NAME).read_bytes().splitlines(keepends=True)

    def write(self, lines):
        (self.path / FILE_NAME).write_bytes(b"".join(lines))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "ledger")


@pytest.mark.checklist(40)
def test_runs_on_the_same_rows_are_composed(folder):
    """By RDP and PLD, and as dp-accounting composes the same events written out."""
    folder.run(range(1, 6), plan(noise_multiplier=2.0), entropy=1)
    total = folder.run(range(1, 4), plan(noise_multiplier=3.0), entropy=2)
    sampler = plan().sampler
    parts = (accounting.Spending(sampler, 2.0, 5), accounting.Spending(sampler, 3.0, 3))
    for name, got in (("rdp", total.epsilon_rdp), ("pld", total.epsilon_pld)):
        assert got == accounting.composed_epsilon(parts, delta=DELTA, accountant=name)
        alone = [plan(noise_multiplier=n).epsilon(k, name) for n, k in ((2.0, 5), (3.0, 3))]
        assert max(alone) < got < sum(alone)
    entries, budget = read(folder.path)
    assert spent(entries, budget) == total and budget == BUDGET
    assert [entry.steps for entry in entries.values()] == [5, 3] and total.steps == 8


@pytest.mark.checklist(20, 40)
def test_a_step_made_again_is_charged_once(folder):
    folder.run([1, 2, 3])
    assert folder.run([2, 3, 4], done=1).steps == 4
    kinds = [json.loads(line)["kind"] for line in folder.lines()]
    assert kinds == ["begin", "run", "inputs", *["step"] * 4]


@pytest.mark.checklist(3, 21, 40)
def test_charged_steps_are_made_again_where_they_were_made(folder):
    """Elsewhere their sums round otherwise: two values under the same noise."""
    folder.run([1, 2])
    with pytest.raises(ValueError, match=r"steps 2 to 2 were charged, .*: machine was A, is B\."):
        folder.run([2], done=1, machine="B")
    folder.run([3], done=2, machine="B")  # Nothing is made again, so it may move.
    for done, machine in ((2, "A"), (1, "A"), (1, "B"), (0, "C")):  # From 1 on, both made some.
        with pytest.raises(ValueError, match=f"steps {done + 1} to 3 were charged"):
            folder.run([], done=done, machine=machine)
    folder.run([3], done=2, machine="B")
    folder.run([4, 5], done=3, machine="A")
    entries, _ = read(folder.path)
    (entry,) = entries.values()
    assert [(done, made["machine"]) for done, made in entry.makers] == [
        (0, "A"),
        (2, "B"),
        (3, "A"),
    ]
    assert entry.differing(4, {"code": "2", "machine": "A", "flag": "x"}) == {
        "code": ("1", "2"),
        "flag": ("not there", "x"),
    }


@pytest.mark.checklist(40)
def test_a_ledger_from_before_machines_were_written_can_be_gone_on_with(folder):
    folder.run([1])
    entries, _ = read(folder.path)
    old = dataclasses.replace(next(iter(entries.values())), makers=())
    assert old.differing(0, {"machine": "B"}) == {}


@pytest.mark.checklist(40)
@pytest.mark.parametrize("step", [0, 3, 6])
def test_a_step_that_skips_or_passes_the_plan_is_not_charged(folder, step):
    folder.run(range(1, 6), entropy=5)
    with pytest.raises(ValueError, match=f"Step {step} cannot be charged"):
        folder.run([1, step] if step else [0])


@pytest.mark.checklist(40)
def test_the_budget_stops_a_run_before_its_first_step(folder):
    """Two runs of epsilon 3 fit a budget of 4 only if composition makes them cheaper than 6."""
    tight = Budget(plan().epsilon(STEPS, "rdp") * 1.2, DELTA)
    folder.run(range(1, 6), entropy=1, budget=tight)
    before = folder.lines()
    with pytest.raises(ValueError, match="above the budget of"):
        folder.run([1], entropy=2, budget=tight)
    assert folder.lines() == before
    folder.run([], entropy=1, done=5, budget=tight)  # The run that was made may go on.
    folder.run([1], plan(noise_multiplier=100.0), entropy=3, budget=tight)


@pytest.mark.checklist(40)
def test_a_run_that_pld_calibrated_to_the_budget_fits_it_once(folder):
    """The total is by RDP until one run is by PLD, which covers them all."""
    whole = plan(noise_multiplier=None, accountant="pld")
    assert whole.epsilon(STEPS, "pld") <= 8.0 < whole.epsilon(STEPS, "rdp")
    total = folder.run(range(1, 6), whole, entropy=1)
    assert (total.accountant, total.epsilon) == ("pld", whole.epsilon(STEPS, "pld"))
    for accountant in accounting.ACCOUNTANTS:
        with pytest.raises(ValueError, match=r"it would be \S+ by pld, above the budget of 8"):
            folder.run([1], plan(accountant=accountant), entropy=2)


@pytest.mark.checklist(40)
def test_the_total_of_runs_by_rdp_is_by_rdp_and_old_plans_are_such(folder):
    assert folder.run([1, 2]).accountant == "rdp"
    (entry,) = read(folder.path)[0].values()
    old = dataclasses.replace(
        entry, plan={k: x for k, x in entry.plan.items() if k != "accountant"}
    )
    assert old.accountant == "rdp" and spent({"x": old}, BUDGET).accountant == "rdp"
    cut = dataclasses.replace(old, plan={**old.plan, "max_batch_size": 9})
    assert cut.accountant == "pld"
    both = spent({"x": old, "y": cut}, BUDGET)
    assert both.accountant == "pld" and both.epsilon == both.epsilon_pld


@pytest.mark.checklist(40)
def test_a_delta_that_publishing_a_row_would_keep_is_no_budget(folder):
    for delta in (1 / ROWS, 0.5):
        loose = Folder(folder.path / str(delta))
        with pytest.raises(ValueError, match=r"the run 37 rows; .* below 0\.027; leave out of"):
            loose.run([1], budget=Budget(8.0, delta))
    folder.run([1], budget=Budget(8.0, 0.99 / ROWS))


@pytest.mark.checklist(3)
def test_the_same_randomness_serves_no_other_plan_or_config(folder):
    folder.run([1, 2])
    with pytest.raises(ValueError, match=r"differs in \['clip_norm'\]; noise must not be used"):
        folder.run([3], plan(clip_norm=0.6))
    with pytest.raises(ValueError, match=r"differs in \['config'\]"):
        folder.run([3], config={"method": "side"})
    assert folder.run([3]).steps == 3


@pytest.mark.checklist(3)
def test_other_rows_and_other_budgets_are_refused(folder):
    folder.run([1])
    with pytest.raises(ValueError, match=r"without a name, and has not seen these rows"):
        Ledger(folder.path, data="other", budget=BUDGET)
    with pytest.raises(ValueError, match=r"epsilon=8\.0.*given is.*epsilon=9\.0"):
        Ledger(folder.path, data="rows", budget=Budget(9.0, DELTA))
    Ledger(folder.path, data="rows", budget=None).close()


@pytest.mark.checklist(3)
def test_rows_of_one_named_data_set_spend_from_one_ledger(folder):
    """They are the same people: one row more has no budget of its own."""

    def opened(data, dataset):
        ledger = Ledger(folder.path, data=data, budget=BUDGET, dataset=dataset)
        ledger.close()
        return ledger

    opened("rows", "clinic")
    folder.run([1, 2])
    assert len(opened("one row more", "clinic").entries) == 1
    opened("one row more", None)  # It has been seen under the name.
    for dataset in (None, "other"):
        with pytest.raises(ValueError, match=r"'clinic', and has .*\.dataset=clinic\. Only the"):
            opened("yet others", dataset)
    assert folder.run([3], done=2).steps == 3


@pytest.mark.checklist("32b", 35)
def test_a_ledger_is_about_one_unit(folder):
    def opened(unit):
        Ledger(folder.path, data="rows", budget=BUDGET, dataset="clinic", unit=unit).close()

    opened("person named by patient")
    opened("person named by patient")
    for other in ("row", "input", "person named by ward"):
        with pytest.raises(ValueError, match=f"'person named by patient'; the run's .* {other!r}"):
            opened(other)
    assert len(folder.lines()) == 1  # A run that is refused leaves no line.


@pytest.mark.checklist("32b", 35)
def test_an_older_ledger_that_names_no_unit_is_not_of_people(folder, monkeypatch):
    def begin(ledger, data, dataset, budget, unit):
        ledger._file.append({"kind": "begin", "data": data, **dataclasses.asdict(budget)})

    monkeypatch.setattr(Ledger, "_begin", begin)
    folder.run([1])
    monkeypatch.undo()
    for unit in ("row", "input"):
        Ledger(folder.path, data="rows", budget=BUDGET, unit=unit).close()
    with pytest.raises(ValueError, match="on units of 'row'; the run's unit is 'person named by"):
        Ledger(folder.path, data="rows", budget=BUDGET, unit="person named by patient")


@pytest.mark.checklist(40)
def test_the_owner_alone_may_read_a_ledger_whatever_the_umask(tmp_path):
    before = os.umask(0o000)
    try:
        Ledger(tmp_path / "new", data="rows", budget=BUDGET).close()
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / FILE_NAME).stat().st_mode & 0o777 == 0o600
    (tmp_path / "new" / FILE_NAME).chmod(0o644)  # As ledgers were made before.
    Ledger(tmp_path / "new", data="rows", budget=BUDGET).close()
    assert (tmp_path / "new" / FILE_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.checklist(45)
def test_two_spellings_of_a_folder_are_one_ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    found = set()
    for spelling in ("~/real", "real", "link", "link/../real", str(tmp_path / "real")):
        ledger = Ledger(spelling, data="rows", budget=BUDGET)
        ledger.close()
        found.add(ledger.path)
    assert found == {tmp_path / "real" / FILE_NAME}


def test_a_budget_begins_a_ledger(folder):
    with pytest.raises(ValueError, match=r"give ledger\.epsilon"):
        Ledger(folder.path, data="rows", budget=None)
    with pytest.raises(ValueError, match="epsilon is -1"):
        Budget(-1, DELTA)


@pytest.mark.checklist(40)
def test_a_torn_last_line_is_cut_and_its_step_charged_when_it_is_made(folder):
    folder.run([1, 2])
    whole = folder.lines()
    for size in (1, len(whole[-1]) - 1):
        folder.write([*whole[:-1], whole[-1][:size]])
        assert read(folder.path)[0].popitem()[1].steps == 1
        assert folder.run([2]).steps == 2
        assert folder.lines() == whole


@pytest.mark.checklist(40)
def test_a_shortened_history_is_refused(folder):
    folder.run([1, 2, 3])
    folder.write(folder.lines()[:-1])
    with pytest.raises(ValueError, match="2 steps of this run, its checkpoint 3: the ledger was"):
        folder.run([4], done=3)


@pytest.mark.checklist(40)
@pytest.mark.parametrize("damage", ["gap", "swap", "edit", "noise"])
def test_a_changed_history_is_refused_and_the_line_named(folder, damage):
    folder.run([1, 2, 3])
    lines = folder.lines()
    changed = {
        "gap": [*lines[:3], *lines[4:]],
        "swap": [*lines[:2], lines[3], lines[2], *lines[4:]],
        "edit": [lines[0].replace(b"8.0", b"9.0"), *lines[1:]],
        "noise": [*lines[:2], b"\x00\xff\n", *lines[3:]],
    }[damage]
    folder.write(changed)
    number = {"gap": 4, "swap": 3, "edit": 1, "noise": 3}[damage]
    for use in (lambda: folder.run([4]), lambda: read(folder.path)):
        with pytest.raises(ValueError, match=f"line {number}: the history was changed"):
            use()
    assert folder.lines() == changed


def test_two_processes_do_not_spend_at_once(folder):
    held = Ledger(folder.path, data="rows", budget=BUDGET)
    with pytest.raises(ValueError, match="in use by another run"):
        Ledger(folder.path, data="rows", budget=BUDGET)
    held.close()
    Ledger(folder.path, data="rows", budget=BUDGET).close()


def test_a_full_disk_stops_before_the_step_and_keeps_what_was_saved(folder, monkeypatch):
    folder.run([1])
    before = folder.lines()
    ledger = Ledger(folder.path, data="rows", budget=BUDGET)
    ledger.begin(plan(), entropy=11, config=CONFIG, done=1, inputs={"code": "1", "machine": "A"})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ValueError, match="No space left on device"):
            ledger.charge(2)
    assert folder.lines() == before
    ledger.charge(2)
    ledger.close()
    assert folder.run([]).steps == 2


@pytest.mark.checklist(39)
def test_no_randomness_and_no_row_can_be_read_off_a_ledger(folder):
    folder.run([1, 2], entropy=0x1234_5678_9ABC_DEF0)
    text = b"".join(folder.lines()).decode()
    assert str(0x1234_5678_9ABC_DEF0) not in text and "123456789abcdef0" not in text.lower()
    assert "lora" not in text  # The config is a hash.
