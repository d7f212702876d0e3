"""What stands at the end of runs names what they cost, what they left behind, and what follows."""

import json
import math

import pytest

from memarc.report import records
from memarc.runs import summary
from tests.report.conftest import made


@pytest.fixture
def folder(tmp_path):
    record = made(method="lora", scores={"dev_accuracy": 0.8}, eval_rows={"dev": 100})
    records.write(record, tmp_path)
    steps = [
        {"event": "step", "step": n, "noised_gradient_norm": 1.0 / n, "update_norm": 0.1}
        for n in (1, 2, 3)
    ]
    scored = [{"event": "validation", "step": 2, "validation_accuracy": 0.75}]
    lines = [*steps, *scored, {"event": "scores", "dev_accuracy": 0.8}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (tmp_path / "trainable.safetensors").touch()
    return tmp_path, record


def test_the_end_says_scores_with_errors_files_that_are_there_and_commands(folder):
    place, record = folder
    assert record.standard_error("dev_accuracy") == pytest.approx(math.sqrt(0.8 * 0.2 / 100))
    told = summary.finish({place: record})
    assert "80.0 ± 4.0 (dev accuracy)" in told
    assert "trainable.safetensors" in told and "ledger.jsonl" not in told
    assert f"experiments.predict --run={place}" in told
    assert f"experiments.export --run={place}" in told
    assert f"experiments.account --statement={place}" in told
    if summary.plots.is_installed():
        assert (place / "curves.png").stat().st_size > 1000 and "curves.png" in told


def test_a_method_without_another_form_is_not_told_to_be_exported(tmp_path):
    told = summary.finish({tmp_path: made(method="side")})
    assert "experiments.export" not in told and "experiments.predict" in told
