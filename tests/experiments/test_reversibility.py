"""The command that measures reversal: exact comes back, float does not, and mistakes are told."""

import json
import subprocess
import sys

import pytest
from absl import flags

from experiments import reversibility
from memarc.models.couplings import COUPLINGS
from memarc.models.reversible import Network


@pytest.fixture
def measured(monkeypatch):
    """Measures a random network of 6 layers, small rows."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])
    for name, value in {"layers": 6, "width": 64, "rows": 2, "tokens": 5}.items():
        monkeypatch.setattr(flags.FLAGS, name, value)

    def run(arithmetic, scale):
        config, params = reversibility._network()
        return reversibility.measure(
            Network(config, COUPLINGS["centred"], scale, 2), params, arithmetic
        )

    return run


def test_exact_comes_back_with_the_gradient_of_autodiff_and_float_does_not(measured):
    found = measured("exact", 2**-7)
    assert found["mismatched_values"] == found["saturated_rows"] == found["max_stream_error"] == 0
    assert len(found["gradient_errors"]) == 6 and max(found["gradient_errors"]) <= 1e-5
    control = measured("float", 2**-7)
    assert control["mismatched_values"] > 0 and control["max_stream_error"] > 1e-3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--lambda=0.1", "needs a power of two"),
        ("--segment=5", "must divide the 24 reversible layers"),
        ("--width=100", "multiple of 64"),
    ],
)
def test_a_mistake_is_one_message_and_writes_nothing(tmp_path, given, told):
    output = tmp_path / "lines.jsonl"
    command = [sys.executable, "-m", "experiments.reversibility", given, f"--output={output}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
    assert not done.stdout and not output.exists()


def test_a_line_is_json(tmp_path):
    output = tmp_path / "lines.jsonl"
    sizes = ["--layers=2", "--width=64", "--rows=1", "--tokens=3", "--dtype=bfloat16"]
    command = [sys.executable, "-m", "experiments.reversibility", *sizes, f"--output={output}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = json.loads(done.stdout)
    assert json.loads(output.read_text()) == line
    assert line["mismatched_values"] == 0 and line["dtype"] == "bfloat16"
