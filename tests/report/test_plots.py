"""The picture is written, holds one line a method, and refuses what it cannot show."""

import dataclasses
import sys

import pytest

from memarc.report import plots


def test_a_picture_has_a_line_for_each_method(tmp_path, example):
    pytest.importorskip("matplotlib")
    runs = [example(method=m, epsilon=e) for m in ("lora", "side") for e in (3.0, float("inf"))]
    path = tmp_path / "scores.svg"
    plots.scores_over_epsilon(runs, path)
    assert path.read_text().count('id="line2d') > 0
    plots.scores_over_epsilon(runs, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_scores_over_memory_have_a_point_a_record_where_its_bytes_and_score_are(
    tmp_path, example, monkeypatch
):
    pytest.importorskip("matplotlib")
    from matplotlib.axes import Axes

    drawn, draw = [], Axes.errorbar
    monkeypatch.setattr(
        Axes, "errorbar", lambda self, *a, **k: drawn.append(a) or draw(self, *a, **k)
    )
    kept, scores = (0, 3 * 2**20), ({"dev_accuracy": 0.75}, {"dev_accuracy": 0.5})
    runs = [
        example(method=m, memory={"backward_bytes": x}, scores=y, standard_errors={})
        for m, x, y in zip(("head", "lora"), kept, scores, strict=True)
    ]
    runs[1] = dataclasses.replace(runs[1], standard_errors={"dev_accuracy": 0.125}, epsilon=3.0)
    plots.scores_over_memory(runs, None, tmp_path / "x.svg")
    assert drawn == [(0.0, 75.0, None), (3.0, 50.0, 12.5)]
    written = (tmp_path / "x.svg").read_text()
    for label in ("head", "lora", "epsilon 3", "MiB kept for the backward pass"):
        assert f"<!-- {label} -->" in written


@pytest.mark.parametrize("draw", [plots.scores_over_epsilon, plots.scores_over_memory])
def test_two_tasks_are_refused(tmp_path, example, draw):
    more = (None,) if draw is plots.scores_over_memory else ()
    with pytest.raises(ValueError, match=r"\['qnli', 'sst2'\]; give those of one task"):
        draw([example(), example(task="qnli")], *more, tmp_path / "x.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch, example):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"memarc\[plot\]"):
        plots.scores_over_epsilon([example()], tmp_path / "x.png")


def test_curves_hold_noised_quantities_the_noise_and_public_scores(tmp_path):
    pytest.importorskip("matplotlib")
    step = {"event": "step", "update_norm": 0.1, "input_share": 0.5}
    lines = [{**step, "step": n, "noised_gradient_norm": 2.0 / n} for n in (1, 2, 2, 3)]
    plots.learning_curves(lines, 0.5, tmp_path / "a.svg")
    scored = [*lines, {"event": "validation", "step": 2, "validation_bleu": 0.3}]
    plots.learning_curves(scored, 0.0, tmp_path / "b.svg")
    first, second = ((tmp_path / name).read_text() for name in ("a.svg", "b.svg"))
    for name in ("noised gradient norm", "update norm", "noise alone"):
        assert f"<!-- {name} -->" in first
    assert "input" not in first and "<!-- noise alone -->" not in second
    assert "<!-- validation bleu (black) -->" in second
    with pytest.raises(ValueError, match="holds no step"):
        plots.learning_curves([{"event": "scores"}], 0.5, tmp_path / "c.svg")


def test_audits_are_drawn_a_pair_of_bars_a_mechanism(tmp_path):
    pytest.importorskip("matplotlib")
    names = ("as it is", "no noise", "noise without C")
    found = {"proven_epsilon": 4.0, "trajectory_epsilon": 5.0, "released_epsilon": 1.0}
    plots.audits([{"name": name, **found} for name in names], tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text().count('id="patch_') > 2 * len(names)
    with pytest.raises(ValueError, match="no audits to draw"):
        plots.audits([], tmp_path / "y.svg")
