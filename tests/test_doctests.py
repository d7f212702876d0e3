"""Every example in a docstring of the library gives what it says."""

import doctest
import importlib
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]

WITH_EXAMPLES = {
    "memarc.evaluation.scores",
    "memarc.evaluation.text_scores",
    "memarc.privacy.accounting",
    "memarc.privacy.auto",
    "memarc.privacy.calibration",
    "memarc.privacy.clipping",
    "memarc.privacy.mechanism",
    "memarc.privacy.noise",
    "memarc.privacy.sampling",
    "memarc.report.records",
    "memarc.runs.fit",
    "memarc.runs.tuned",
}
"""Modules that must have examples; any other may."""


def test_examples_in_docstrings_give_what_they_say(monkeypatch):
    monkeypatch.chdir(ROOT)  # Examples name the weights of the quickstart.
    found = set()
    for path in sorted((ROOT / "memarc").rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            failed, tried = doctest.testmod(importlib.import_module(name))
            assert tried and not failed, name
            found.add(name)
    assert found >= WITH_EXAMPLES
