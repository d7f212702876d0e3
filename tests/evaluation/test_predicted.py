"""Standard errors by the jackknife: of means by hand, of others against many draws of rows."""

import math

import numpy as np
import pytest

from memarc.evaluation import scores
from memarc.evaluation.predicted import GROUPS, Predicted, jackknife, standard_errors
from memarc.evaluation.predicted import scores as scores_of


def mean_of(values):
    return Predicted(len(values), lambda kept: {"mean": float(np.mean(values[kept]))})


def test_of_a_mean_it_is_the_deviation_over_the_root_of_the_rows():
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    wanted = np.std(values, ddof=1) / math.sqrt(5)
    assert jackknife(mean_of(values))["mean"] == pytest.approx(wanted, rel=1e-12)


def test_groups_of_rows_are_as_good_as_rows():
    """Of 400 rows; ten groups know their own spread to about a quarter."""
    rng = np.random.default_rng(0)
    found = [jackknife(mean_of(rng.standard_normal(400)))["mean"] for _ in range(200)]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(1 / 20, rel=0.05)
    assert np.std(found) * 20 == pytest.approx(1 / math.sqrt(2 * (GROUPS - 1)), rel=0.2)


def test_of_a_correlation_it_is_what_other_rows_would_change():
    """No mean: against the spread of the score over many sets of rows."""
    rng = np.random.default_rng(1)
    labels, errors = [], []
    for _ in range(150):
        truth = rng.integers(0, 2, 200)
        odds = np.where(rng.random(200) < 0.8, truth, 1 - truth)[:, None] == np.arange(2)
        one = Predicted(
            200, lambda kept, t=truth, o=odds: scores.score(("matthews",), t[kept], o[kept] * 1.0)
        )
        labels.append(scores_of({"dev": [one]})["dev_matthews"])
        errors.append(standard_errors({"dev": [one]})["dev_matthews"])
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(labels), rel=0.15)


def test_what_is_not_known_is_left_out():
    infinite = Predicted(3, lambda kept: {"perplexity": math.inf, "undefined": 1.0})
    assert standard_errors({"dev": [infinite, mean_of(np.array([2.0]))]}) == {"dev_undefined": 0.0}
    assert scores_of({"dev": [mean_of(np.array([2.0]))], "test": [infinite]}) == {
        "dev_mean": 2.0,
        "test_perplexity": math.inf,
        "test_undefined": 1.0,
    }
