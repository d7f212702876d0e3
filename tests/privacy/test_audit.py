"""The auditor says nothing of noise, stays below the truth, and comes near it."""

import numpy as np
import pytest

from memarc.privacy import accounting, audit
from memarc.privacy.sampling import PoissonSampler

pytest.importorskip("jax_privacy")

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
    found = [bound(*gaussian(separation, 2000, seed)) for seed in range(10)]
    assert max(found) <= truth
    assert min(found) > 0.08 * truth  # One run and one pair of hypotheses tell this much.


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


def test_mistakes_are_named():
    scores = np.arange(4.0)
    with pytest.raises(ValueError, match="All 4 coins fell alike"):
        bound(scores, np.ones(4, bool))
    with pytest.raises(ValueError, match="not finite"):
        bound(scores * np.nan, scores > 1)
    with pytest.raises(ValueError, match="confidence is 1"):
        bound(scores, scores > 1, 1)
