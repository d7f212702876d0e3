"""Scores by hand; predictions over a dataset whose last batch is partial."""

import numpy as np
import pytest

from memarc.evaluation import scores


def test_accuracy_and_f1_are_those_computed_by_hand():
    labels, predicted = np.asarray([1, 1, 1, 0, 0, 0, 0]), np.asarray([1, 0, 1, 1, 0, 0, 0])
    found = scores.score(("accuracy", "f1"), labels, predicted)
    assert list(found) == ["accuracy", "f1"]
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))  # 2 TP / (2 TP + FP + FN)


def test_f1_without_positives_is_zero():
    zeros = np.zeros(3, int)
    assert scores.score(("f1",), zeros, zeros) == {"f1": 0.0}


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"Unknown scores \['bleu'\]"):
        scores.score(("bleu",), np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        scores.score(("accuracy",), np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="at least 1"):
        scores.score(("accuracy",), np.zeros(0), np.zeros(0))
