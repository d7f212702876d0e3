"""A privacy statement says all that its record and folder do, and its epsilon can be made again."""

import json
import pathlib
import shutil

import pytest

from memarc.report import records
from memarc.runs import statement
from tests import commands

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNS = ("results/e2e/lora-eps8", "results/sst2/adapter-eps3")


@pytest.fixture(params=[x for x in RUNS if (ROOT / x).is_dir()])
def folder(request, tmp_path):
    """A committed run, with parameters that stand for its own."""
    shutil.copytree(ROOT / request.param, tmp_path / "run")
    (tmp_path / "run" / "trainable.safetensors").write_bytes(b"released")
    return tmp_path / "run"


def test_epsilon_follows_from_what_the_statement_says(folder):
    record = records.read(folder / "record.json")
    made = json.loads(json.dumps(statement.make(folder)))
    assert statement.recomputed_epsilon(made) == pytest.approx(record.epsilon, rel=1e-9)
    changed = {**made, "mechanism": {**made["mechanism"], "steps": 2 * record.steps}}
    assert statement.recomputed_epsilon(changed) > 1.1 * record.epsilon
    without = made["accounting"]["epsilon_without_amplification_by_sampling"]
    assert without > record.epsilon_pld
    assert made["promise"]["holds"] is True
    assert made["composition"]["ledger_head"] is None  # It is not there, and secret where it is.


def test_a_run_of_a_fixed_seed_or_without_noise_holds_nothing(folder):
    path = folder / "record.json"
    plain = json.loads(path.read_text())
    for change in (
        {"reproducible_noise": "fixed seed"},
        {"epsilon": "inf", "noise_multiplier": 0.0},
    ):
        path.write_text(json.dumps({**plain, **change}))
        made = statement.make(folder)
        assert made["promise"]["holds"] is False and made["promise"]["why_it_does_not"]


def test_the_command_writes_a_page_and_a_file(folder):
    done = commands.run("experiments.account", f"--statement={folder}")
    assert done.returncode == 0, done.stderr
    page, data = (pathlib.Path(line) for line in done.stdout.split())
    assert json.loads(data.read_text()) == json.loads(json.dumps(statement.make(folder)))
    text = page.read_text()
    for told in ("| delta |", "| noise multiplier |", "| unit |", "## Not covered", "| divisor |"):
        assert told in text


@pytest.mark.checklist(37)
def test_an_audit_of_the_run_is_told_and_one_of_another_run_is_refused(folder, tmp_path):
    record = records.read(folder / "record.json")
    assert "none was made" in statement.make(folder)["audit"]
    kinds = [("gradient", "trajectory"), ("gradient", "released"), ("random", "released")]
    found = {
        **{name: getattr(record, name) for name in statement._OF_THE_RUN},
        "empirical_epsilon": 1.5,
        "trajectory_epsilon": 1.5,
        "released_epsilon": 0.9,
        "confidence": 0.95,
        "canaries": [{"kind": x, "seen": y, "included": 30, "left_out": 20} for x, y in kinds],
    }
    path = tmp_path / statement.AUDIT_FILE
    path.write_text(json.dumps(found))
    made = statement.make(folder, tmp_path)
    assert made["audit"]["epsilon_is_at_least"] == 1.5 and made["audit"]["canaries"] == 100
    assert "| by released parameters | 0.9 |" in statement.as_markdown(made)
    path.write_text(json.dumps({**found, "steps": record.steps + 1}))
    with pytest.raises(ValueError, match=rf"another run: steps {record.steps + 1} \(the run has"):
        statement.make(folder, tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="cannot be read as an audit"):
        statement.make(folder, tmp_path)


def test_a_folder_without_a_record_is_told(tmp_path):
    done = commands.run("experiments.account", f"--statement={tmp_path}")
    assert done.returncode == 2 and "record.json" in done.stderr
