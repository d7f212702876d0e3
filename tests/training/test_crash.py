"""Killed at any moment, a run goes on to the same end, and every noised step is charged once."""

import json
import pathlib
import random
import subprocess
import sys
import time

import pytest

from memarc.privacy.ledger_entries import FILE_NAME, read
from tests.training.toy_process import STEPS

ROOT = pathlib.Path(__file__).resolve().parents[2]
KILLS = 50


def started(folder):
    command = [sys.executable, "-m", "tests.training.toy_process", str(folder)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_to_the_end(folder) -> str:
    out, errors = started(folder).communicate(timeout=300)
    assert "done" in out, errors
    return out.split()[-1]


def killed_after(folder, events, delay) -> bool:
    """Kills a run ``delay`` seconds after its n-th announcement; False if it ended before."""
    process = started(folder)
    assert process.stdout is not None
    for _ in range(events):
        line = process.stdout.readline()
        if not line or line.startswith("done"):
            break
    else:
        time.sleep(delay)
        process.kill()
    process.communicate()
    return process.returncode == -9


def charged(folder) -> int:
    """Steps that the folder's ledger holds."""
    entries, _ = read(folder)
    return sum(entry.steps for entry in entries.values())


def logged(folder) -> dict[int, dict]:
    """Step -> its public metrics; a torn last line is none. A step made again must be the same."""
    found = {}
    path = folder / "log.jsonl"
    for text in path.read_text().split("\n")[:-1] if path.exists() else []:
        line = json.loads(text)
        del line["seconds"], line["input_share"]  # Times differ.
        assert found.setdefault(line["step"], line) == line
    return found


@pytest.mark.slow
@pytest.mark.checklist(3, 40)
def test_kills_at_fifty_moments_change_nothing_and_lose_nothing(tmp_path):
    chance = random.Random(0)
    whole = tmp_path / "whole"
    wanted = run_to_the_end(whole)
    kills, lives = 0, 0
    while kills < KILLS:
        lives += 1
        folder = tmp_path / f"killed{lives}"
        while kills < KILLS:
            alive = not killed_after(folder, chance.randint(1, 30), chance.choice([0, 0.001, 0.01]))
            if alive:
                break
            kills += 1
            if (folder / FILE_NAME).exists():
                assert charged(folder) >= max(logged(folder), default=0)
        assert run_to_the_end(folder) == wanted
        assert (folder / FILE_NAME).read_bytes() == (whole / FILE_NAME).read_bytes()
        assert logged(folder) == logged(whole) and charged(folder) == STEPS
    assert lives >= 3
