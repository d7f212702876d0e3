"""Scores by hand; predictions over a dataset whose last batch is partial."""

import numpy as np
import pytest

from memarc.evaluation import scores


def test_accuracy_and_f1_are_those_computed_by_hand():
    labels, predicted = np.asarray([1, 1, 1, 0, 0, 0, 0]), np.asarray([1, 0, 1, 1, 0, 0, 0])
    found = scores.score(("accuracy", "f1"), labels, np.eye(2)[predicted])
    assert list(found) == ["accuracy", "f1"]
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))  # 2 TP / (2 TP + FP + FN)


def test_f1_without_positives_is_zero():
    zeros = np.zeros(3, int)
    assert scores.score(("f1",), zeros, np.eye(2)[zeros]) == {"f1": 0.0}


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"Unknown scores \['bleu'\]"):
        scores.score(("bleu",), np.zeros(2), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        scores.score(("accuracy",), np.zeros(2), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="at least 1"):
        scores.score(("accuracy",), np.zeros(0), np.zeros((0, 2)))


def test_scores_of_probabilities_are_those_computed_by_hand():
    labels = np.asarray([1, 0, 1, 0])
    second = np.asarray([0.9, 0.2, 0.4, 0.6])
    found = scores.score(("auc", "matthews", "macro_f1"), labels, np.stack([1 - second, second], 1))
    assert found["auc"] == pytest.approx(3 / 4)  # Of four pairs one is in the wrong order.
    assert found["matthews"] == pytest.approx(0.0)  # One of each: true, false, of both classes.
    assert found["macro_f1"] == pytest.approx(0.5)
    one_class = scores.score(("auc",), np.ones(2, int), np.full((2, 2), 0.5))
    assert np.isnan(one_class["auc"])


def test_a_declared_class_that_never_occurs_counts_in_macro_f1():
    labels = np.asarray([0, 1])
    assert scores.score(("macro_f1",), labels, np.eye(4)[labels])["macro_f1"] == 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_a_row_without_a_prediction_is_wrong_whatever_its_label(label):
    nothing = np.full((1, 3), np.nan)
    assert scores.score(("accuracy",), np.asarray([label]), nothing) == {"accuracy": 0.0}


def test_scores_of_numbers_are_those_computed_by_hand():
    values, predicted = np.asarray([1.0, 2.0, 3.0]), np.asarray([2.0, 2.0, 8.0])
    found = scores.score_numbers(("pearson", "spearman", "rmse"), values, predicted)
    assert found["rmse"] == pytest.approx(np.sqrt((1 + 0 + 25) / 3))
    assert found["pearson"] == pytest.approx(6 / np.sqrt(2 * 24))
    assert found["spearman"] == pytest.approx(1.5 / np.sqrt(2 * 1.5))  # Ranks 1.5, 1.5, 3.
    assert np.isnan(scores.score_numbers(("pearson",), values, np.ones(3))["pearson"])
    assert np.isnan(scores.score_numbers(("rmse",), values, values * np.nan)["rmse"])
