"""What scores of canaries tell: a lower bound on epsilon to hold against the proven one.

Each canary is in the data or not by its own coin. Whoever sees the release scores every canary;
the more guesses from the highest and lowest scores are right, the larger epsilon must be
(`memarc.privacy.one_run`).

Axes: M canaries.
"""

import dataclasses
import math

import numpy as np
import scipy.stats

from memarc.privacy import accounting, one_run
from memarc.privacy.accounting import Spending
from memarc.privacy.one_run import Curve, Guesses

GUESSED = ((0.03, 0.0), (0.1, 0.1), (0.2, 0.0))
"""Shares of the canaries that are guessed to be in, by the highest scores, and out, by the lowest:
three ways to guess, fixed beforehand, that share the confidence. What is drawn seldom shows in few
high scores; weak scores need many guesses, and so does the proof of a large epsilon."""

FALSE_POSITIVE_RATE = 1e-3
"""The rate at which the true positive rate of membership inference is stated."""

_CURVE_POINTS = 150
"""Epsilons at which curves are compared; fewer are an upper bound too."""

_NOISE_SEARCHED, _NOISE_STEP = (-2.0, 4.0), 0.025
"""Powers of two between which the noise of a family is searched, times that of the plan."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one kind of canary tells.

    Attributes:
      included: Canaries that were in.
      left_out: Canaries that were not.
      guesses: Guesses of the way to guess that tells most.
      right: How many of them were right.
      epsilon: Lower bound on epsilon that assumes nothing; 0 if nothing can be said.
      auc: Area under the curve of true over false positives; 0.5 by chance.
      true_positive_rate: The rate of true positives at `FALSE_POSITIVE_RATE`.
    """

    included: int
    left_out: int
    guesses: int
    right: int
    epsilon: float
    auc: float
    true_positive_rate: float


def flip_coins(count: int, generator: np.random.Generator) -> np.ndarray:
    """Whether each canary is in, bool[M]: independent fair coins, as the bound requires."""
    return generator.random(count) < 0.5


def examine(
    scores: np.ndarray, is_included: np.ndarray, *, delta: float, confidence: float
) -> Finding:
    """Bounds epsilon from below, whatever the mechanism is.

    Args:
      scores: float[M]; higher where a canary seems to be in. Functions of the release and of
        public values alone.
      is_included: bool[M], the coins.
      delta: The delta of the guarantee that is held against the bound.
      confidence: In (0, 1); the chance that a true guarantee is not contradicted. The ways to
        guess of `GUESSED` share it.

    Returns:
      The finding.

    Raises:
      ValueError: If a score is not finite, or all coins fell alike.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; give a number in (0, 1).")
    if not np.isfinite(scores).all():
        raise ValueError("A canary's score is not finite; the run diverged.")
    if is_included.all() or not is_included.any():
        raise ValueError(f"All {len(scores)} coins fell alike; give more canaries.")
    each = shared(confidence, len(GUESSED))
    bounds = {
        guesses: one_run.epsilon_of_guesses(guesses, delta=delta, confidence=each)
        for guesses in guess(scores, is_included)
    }
    best = max(bounds, key=lambda guesses: bounds[guesses])
    false, true = rates(scores, is_included)
    above = scipy.stats.mannwhitneyu(scores[is_included], scores[~is_included]).statistic
    return Finding(
        included=int(is_included.sum()),
        left_out=int((~is_included).sum()),
        guesses=best.made,
        right=best.right,
        epsilon=bounds[best],
        auc=float(above / (is_included.sum() * (~is_included).sum())),
        true_positive_rate=float(true[false <= FALSE_POSITIVE_RATE].max()),
    )


def within_family(finding: Finding, plan: Spending, *, delta: float, confidence: float) -> float:
    """Bounds epsilon from below among mechanisms that differ from a plan in their noise alone.

    It is the epsilon of the most private of them that the guesses do not contradict, so it says
    nothing of a mechanism with another sampler, another number of steps, or none of this form.

    Args:
      finding: What `examine` gave, at the same confidence.
      plan: The sampler, the steps and the noise of the plan.
      delta: The delta of epsilon.
      confidence: The confidence of the bound (`examine`).

    Returns:
      The bound; 0 if nothing can be said, and infinity for a plan without noise.
    """
    if plan.noise_multiplier == 0:
        return math.inf
    guesses = Guesses(finding.included + finding.left_out, finding.guesses, finding.right)
    each = shared(confidence, len(GUESSED))
    epsilons = np.linspace(0.0, 16.0, _CURVE_POINTS)

    def noisier(power: float) -> Spending:
        return dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier * 2.0**power)

    def is_contradicted(power: float) -> bool:
        curve = Curve(epsilons, accounting.privacy_curve(noisier(power), epsilons))
        return one_run.is_contradicted(guesses, curve, confidence=each)

    low, high = _NOISE_SEARCHED
    if not is_contradicted(high):
        return 0.0
    while high - low > _NOISE_STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if is_contradicted(middle) else (middle, high)
    return accounting.composed_epsilon((noisier(high),), delta=delta, accountant="pld")


def guess(scores: np.ndarray, is_included: np.ndarray) -> list[Guesses]:
    """How each way to guess of `GUESSED` does."""
    hits, count = is_included[np.argsort(-scores, kind="stable")], len(scores)
    found = []
    for share_in, share_out in GUESSED:
        number_in, number_out = (math.floor(share * count) for share in (share_in, share_out))
        right = hits[:number_in].sum() + (~hits[count - number_out :]).sum()
        found.append(Guesses(count, number_in + number_out, int(right)))
    return found


def shared(confidence: float, statements: int) -> float:
    """The confidence of each of some statements, if all are to hold at ``confidence``."""
    return 1 - (1 - confidence) / statements


def rates(scores: np.ndarray, is_included: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold, float[M + 1] each, from 0 to 1."""
    hits = is_included[np.argsort(-scores, kind="stable")]
    false = np.concatenate([[0.0], np.cumsum(~hits) / max(1, (~hits).sum())])
    true = np.concatenate([[0.0], np.cumsum(hits) / max(1, hits.sum())])
    return false, true
