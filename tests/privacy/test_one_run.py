"""Bounds from guesses: by hand, against a second library, and by simulation of known mechanisms."""

import numpy as np
import pytest
import scipy.stats

from memarc.privacy import accounting, one_run
from memarc.privacy.accounting import Spending
from memarc.privacy.one_run import Curve, Guesses
from memarc.privacy.sampling import PoissonSampler

POINTS = np.linspace(0.0, 12.0, 400)


def gaussian(separation):
    """The privacy curve of one Gaussian mechanism, in closed form (Balle and Wang 2018)."""
    cdf = scipy.stats.norm.cdf
    first = cdf(separation / 2 - POINTS / separation)
    second = np.exp(POINTS) * cdf(-separation / 2 - POINTS / separation)
    return Curve(POINTS, first - second)


@pytest.mark.checklist(37)
def test_the_chance_of_right_guesses_is_counted_by_hand():
    assert one_run.p_value(Guesses(10, 3, 3), 0.0, 0.0) == pytest.approx(1 / 8)
    assert one_run.p_value(Guesses(10, 3, 3), np.log(3), 0.0) == pytest.approx(27 / 64)
    assert one_run.p_value(Guesses(10, 3, 0), 0.0, 0.0) == 1.0
    # Two of two: P[W >= 2] = 1/4; (P[W >= 1] - 1/4) / 1 = 1/2 is the steepest.
    assert one_run.p_value(Guesses(10, 2, 2), 0.0, 0.01) == pytest.approx(1 / 4 + 2 * 10 * 0.01 / 2)


@pytest.mark.checklist(37)
@pytest.mark.parametrize("given", [(10_000, 300, 263), (500, 50, 45), (2000, 800, 500)])
@pytest.mark.parametrize("delta", [1e-7, 1e-5])
def test_a_second_library_gives_the_same_bounds(given, delta):
    auditing = pytest.importorskip("jax_privacy.auditing")
    canaries, made, right = given
    # Scores of which a threshold guesses ``made`` canaries to be in, ``right`` of them rightly.
    auditor = auditing.CanaryScoreAuditor(
        np.repeat([1.0, 0.0], [right, canaries // 2 - right]),
        np.repeat([1.0, 0.0], [made - right, canaries // 2 - made + right]),
    )
    choice = {"significance": 0.05, "threshold_strategy": auditing.Explicit(1.0)}
    ours = one_run.epsilon_of_guesses(Guesses(*given), delta=delta, confidence=0.95)
    assert ours == pytest.approx(auditor.epsilon_one_run(delta=delta, **choice), abs=1e-4)
    theirs = auditor.epsilon_one_run_fdp(delta=delta, **choice)
    assert theirs > ours
    for epsilon, wanted in ((0.98 * theirs, True), (1.02 * theirs, False)):
        curve = gaussian(separation_of(epsilon, delta))
        assert one_run.is_contradicted(Guesses(*given), curve, confidence=0.95) is wanted


def separation_of(epsilon, delta):
    """The separation at which one Gaussian mechanism has an epsilon, from its closed form."""
    low, high = 0.01, 8.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        curve = gaussian(middle)
        low, high = (
            (middle, high) if np.interp(epsilon, POINTS, curve.deltas) < delta else (low, middle)
        )
    return low


def test_a_curve_bounds_chances_from_below_and_tightly():
    for chance in (1e-4, 0.05, 0.7, 0.99):
        truth = scipy.stats.norm.cdf(scipy.stats.norm.ppf(chance) - 1.3)
        assert 0.995 * truth - 1e-7 <= gaussian(1.3).least(chance) <= truth + 1e-12


def test_the_curve_of_a_plan_is_that_of_its_mechanism():
    part = Spending(PoissonSampler(50, 1.0), 2.0, 4)  # Together one Gaussian, separation 1.
    deltas = accounting.privacy_curve(part, POINTS[:100])
    truth = gaussian(1.0).deltas[:100]
    assert (deltas >= truth - 1e-12).all()
    np.testing.assert_allclose(deltas, truth, atol=1e-4)
    with pytest.raises(ValueError, match="Without noise there is no privacy curve"):
        accounting.privacy_curve(Spending(PoissonSampler(50, 1.0), 0.0, 4), POINTS)


@pytest.mark.checklist(37)
def test_randomized_response_is_bounded_from_below_at_the_stated_confidence():
    rng = np.random.default_rng(0)
    right = rng.binomial(400, 1 / (1 + np.exp(-1.5)), size=400)
    bounds = {
        x: one_run.epsilon_of_guesses(Guesses(400, 400, int(x)), delta=0.0, confidence=0.9)
        for x in set(right.tolist())
    }
    found = np.array([bounds[x] for x in right.tolist()])
    assert np.mean(found > 1.5) <= 0.13
    assert np.median(found) > 1.2


def test_all_right_is_a_bound_and_impossible_numbers_are_refused():
    all_right = one_run.epsilon_of_guesses(Guesses(100, 100, 100), delta=0.0, confidence=0.95)
    assert (1 / (1 + np.exp(-all_right))) ** 100 == pytest.approx(0.05, rel=1e-4)
    with pytest.raises(ValueError, match="3 of 2 guesses about 5 canaries"):
        Guesses(5, 2, 3)
