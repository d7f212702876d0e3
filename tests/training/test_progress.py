"""What people are told of a run: steps, rate, time left, at a terminal and elsewhere."""

import io
import sys

from memarc.training.progress import Progress


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now


def test_a_line_comes_every_ten_seconds_and_at_the_end(capsys):
    clock = Clock()
    progress = Progress("side", first=20, steps=32, clock=clock)
    for _ in range(12):
        clock.now += 4.0
        progress.step()
    progress.close()
    assert capsys.readouterr().err.splitlines() == [
        "side: step 23 of 32, 0.25 steps a second, 0:00:36 left",
        "side: step 26 of 32, 0.25 steps a second, 0:00:24 left",
        "side: step 29 of 32, 0.25 steps a second, 0:00:12 left",
        "side: step 32 of 32, 0.25 steps a second, 0:00:00 left",
    ]


def test_a_score_stays_until_the_next():
    clock = Clock()
    progress = Progress("t", first=0, steps=4000, clock=clock)
    assert progress.line() == "t: step 0 of 4000, 0 steps a second, unknown left"
    clock.now += 2.0
    progress.step()
    progress.note("validation accuracy 0.71")
    assert progress.line() == (
        "t: step 1 of 4000, 0.5 steps a second, 2:13:18 left, validation accuracy 0.71"
    )


def test_at_a_terminal_one_line_changes(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress("lora", first=1, steps=3)
    progress.note("bleu 0.5")
    progress.step()
    progress.step()
    progress.close()
    told = terminal.getvalue()
    assert "lora: 100%" in told and "3/3" in told and "bleu 0.5" in told
    assert told.count("\n") == 1
