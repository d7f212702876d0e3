"""The command that measures reversal prints a line, and tells mistakes."""

import json

import pytest

from tests import commands


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--width=64", "--layers=3", "--lambda=0.1"), "needs a power of two"),
        (("--width=64", "--layers=3", "--segment=2"), "must divide the 3 reversible layers"),
        (("--width=100",), "multiple of 64"),
    ],
)
def test_a_mistake_is_one_message_and_writes_nothing(tmp_path, given, told):
    output = tmp_path / "lines.jsonl"
    done = commands.run("experiments.reversibility", *given, f"--output={output}")
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
    assert not done.stdout and not output.exists()


def test_a_line_is_json(tmp_path):
    output = tmp_path / "lines.jsonl"
    sizes = [
        "--layers=1",
        "--segment=1",
        "--width=64",
        "--rows=1",
        "--tokens=3",
        "--dtype=bfloat16",
    ]
    done = commands.run("experiments.reversibility", *sizes, f"--output={output}")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert json.loads(output.read_text()) == line
    assert line["saturated_values"] == 0 and line["dtype"] == "bfloat16"
    assert len(line["gradient_errors"]) == 1 and "mismatched_values" in line
