"""Rows without a prediction count as wrong, and how many there are stands beside the score."""

import types

import numpy as np

from memarc.evaluation.predicted import scores
from memarc.runs import classification


def test_rows_out_of_range_are_wrong_and_counted(monkeypatch):
    predicted = np.array([[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8], [0.6, np.nan]])
    monkeypatch.setattr(classification, "probabilities", lambda *_: predicted)
    labels = np.array([0, 0, 1, 1])
    task = types.SimpleNamespace(metrics=("accuracy",))
    parts = types.SimpleNamespace(settings=types.SimpleNamespace(record_of_task=task))
    given = types.SimpleNamespace(dataset=types.SimpleNamespace(labels=labels))
    found = classification.Classification().predict(parts, {}, {}, {"dev": given}, None)
    assert scores(found) == {"dev_accuracy": 0.5, "dev_undefined": 0.5}
