"""The auditor says nothing of noise, stays below the truth, and comes near it."""

import numpy as np
import pytest

from memarc.privacy import accounting, audit
from memarc.privacy.accounting import Spending
from memarc.privacy.sampling import PoissonSampler

DELTA = 1e-5


def gaussian(separation, count, seed):
    """Scores of canaries that one Gaussian mechanism moves by ``separation`` deviations."""
    rng = np.random.default_rng(seed)
    is_included = audit.flip_coins(count, rng)
    return separation * is_included + rng.standard_normal(count), is_included


def bound(scores, is_included, confidence=0.95):
    return audit.examine(scores, is_included, delta=DELTA, confidence=confidence).epsilon


@pytest.mark.checklist(37)
def test_scores_that_know_nothing_bound_epsilon_by_about_zero():
    found = [bound(*gaussian(0.0, 1000, seed)) for seed in range(40)]
    assert np.mean(np.asarray(found) > 0) <= 0.1  # Confidence 0.95.
    assert max(found) < 0.5


@pytest.mark.checklist(37)
@pytest.mark.parametrize("separation", [0.5, 1.0, 2.0])
def test_a_known_gaussian_is_bounded_from_below_and_not_far_below(separation):
    truth = accounting.epsilon(
        PoissonSampler(1, 1.0, None),
        noise_multiplier=1 / separation,
        steps=1,
        delta=DELTA,
        accountant="pld",
    )
    found = [bound(*gaussian(separation, 10_000, seed)) for seed in range(10)]
    assert max(found) <= truth
    assert min(found) > 0.3 * truth  # One run and one pair of hypotheses tell this much.


@pytest.mark.checklist(37)
def test_among_gaussians_alone_the_bound_is_nearer_the_truth_and_still_below():
    plan = Spending(PoissonSampler(1, 1.0), 1.0, 1)
    truth = accounting.composed_epsilon((plan,), delta=DELTA, accountant="pld")
    finding = audit.examine(*gaussian(1.0, 10_000, 4), delta=DELTA, confidence=0.95)
    within = audit.within_family(finding, plan, delta=DELTA, confidence=0.95)
    assert 1.15 * finding.epsilon < within < truth
    nothing = audit.examine(*gaussian(0.0, 1000, 4), delta=DELTA, confidence=0.95)
    assert audit.within_family(nothing, plan, delta=DELTA, confidence=0.95) == 0.0


@pytest.mark.checklist(37)
def test_without_noise_a_small_claim_is_contradicted():
    _, is_included = gaussian(1.0, 1000, 0)
    assert bound(is_included.astype(float), is_included) > 3.0
    assert bound(1.0 - is_included, is_included) == 0.0  # A guess that is always wrong.


def test_more_confidence_bounds_less_and_membership_is_scored_by_hand():
    scores, is_included = gaussian(1.5, 1000, 3)
    assert bound(scores, is_included, 0.999) < bound(scores, is_included, 0.9)
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    is_included = np.array([True, False, True, False])
    found = audit.examine(scores, is_included, delta=DELTA, confidence=0.9)
    assert (found.included, found.left_out, found.auc) == (2, 2, 0.75)
    assert found.true_positive_rate == 0.5
    false, true = audit.rates(scores, is_included)
    np.testing.assert_array_equal(false, [0, 0, 0.5, 0.5, 1])
    np.testing.assert_array_equal(true, [0, 0.5, 0.5, 1, 1])


def test_guesses_are_of_the_highest_and_lowest_scores(monkeypatch):
    monkeypatch.setattr(audit, "GUESSED", ((0.2, 0.0), (0.2, 0.4)))
    is_included = np.array([True, False, True, True, False])
    highest, both = audit.guess(np.array([5.0, 1.0, 3.0, 2.0, 4.0]), is_included)
    assert (highest.canaries, highest.made, highest.right) == (5, 1, 1)
    assert (both.made, both.right) == (3, 2)  # 5 is in; of 1 and 2, the lowest, 1 is out.


def test_mistakes_are_named():
    scores = np.arange(4.0)
    with pytest.raises(ValueError, match="All 4 coins fell alike"):
        bound(scores, np.ones(4, bool))
    with pytest.raises(ValueError, match="not finite"):
        bound(scores * np.nan, scores > 1)
    with pytest.raises(ValueError, match="confidence is 1"):
        bound(scores, scores > 1, 1)
