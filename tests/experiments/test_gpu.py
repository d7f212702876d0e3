"""The script for a lent GPU: its commands are ones that there are, the benchmark first."""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.experiments.test_cluster import shellcheck

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "results" / "gpu" / "measure.sh"
FLAGS = {
    name
    for file in ("bench", "cli", "measuring", "rows_at_once", "step_sizes")
    for name in re.findall(
        r'DEFINE_\w+\(\s*"(\w+)"', (ROOT / "experiments" / f"{file}.py").read_text()
    )
}
"""What `experiments.bench` takes; benchmarks.run has some of the same, so neither is imported."""

RECORDER = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
sys.exit(int("full.jsonl" in sys.argv[-1]))
"""


def holds(config, field):
    """Whether a config has a field such as "options.lora.rank"."""
    for name in field.split("."):
        if name not in config:
            return False
        config = config[name]
    return True


def ended(*arguments, **environment):
    """The script that has ended."""
    given = {**os.environ, **environment}
    return subprocess.run(
        ["bash", SCRIPT, *arguments], cwd=ROOT, env=given, capture_output=True, text=True
    )


@pytest.fixture
def calls(tmp_path):
    """Gives the commands that a part would run, of which one that times "full" fails."""

    def find(*arguments):
        (tmp_path / "python").write_text(RECORDER)
        (tmp_path / "python").chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = ended(*arguments, PATH=path, CALLS=str(tmp_path / "calls"))
        return done, [json.loads(x) for x in (tmp_path / "calls").read_text().splitlines()]

    return find


def test_shellcheck_finds_nothing_in_the_script():
    found = shellcheck(SCRIPT)
    assert found.returncode == 0, found.stdout


def test_steps_are_timed_one_after_the_other_whatever_fails(calls, tmp_path):
    done, found = calls("speed", tmp_path / "out")
    assert done.returncode == 1 and "== status 1 of: python -m experiments.bench" in done.stdout
    assert [pathlib.Path(call[-1]).stem for call in found][::6] == ["full", "llama_70b"]
    for module, *given in (call[1:] for call in found):
        assert module == "experiments.bench"
        (file,) = [x.removeprefix("--config=") for x in given if x.startswith("--config=")]
        name = file.removesuffix(".py").replace("/", ".")
        config = importlib.import_module(name).get_config()
        for flag in (x.removeprefix("--").partition("=")[0] for x in given):
            field = flag.removeprefix("config.")
            assert flag in FLAGS if field == flag else holds(config, field), flag


def test_runs_are_those_of_the_config_and_need_weights(calls, tmp_path):
    _, found = calls("smollm2", tmp_path / "out", "weights.gguf")
    names = importlib.import_module("configs.smollm2_e2e").get_config().runs
    for module, *given in (call[1:] for call in found):
        assert module == "experiments.run" and "--config=configs/smollm2_e2e.py" in given
    only = [call[-1].removeprefix("--only=") for call in found]
    assert only[0] == "lora-eps8" and len(set(only)) == 5 and set(only) <= set(names)
    assert "the weights of SmolLM2" in ended("smollm2", tmp_path / "out").stderr
    assert ended("everything", tmp_path / "out").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(("part", "lines"), [("speed", 21), ("smollm2", 5)])
def test_everything_goes_through_at_tiny_sizes(tmp_path, part, lines):
    done = ended(part, tmp_path, TINY="1")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = sum(len(x.read_text().splitlines()) for x in tmp_path.glob("*.jsonl"))
    assert found + len(list(tmp_path.glob("records/*.json"))) == lines
