"""What a released model tells of canaries: a lower bound on epsilon to hold against the proven one.

Each canary is in the data or not by its own coin. Whoever sees the released parameters scores every
canary; the more guesses from high scores are right, the larger epsilon must be.

Source: Steinke et al. 2023, Privacy Auditing with One (1) Training Run, arXiv:2305.08846; computed
by `jax_privacy`.

Axes: M canaries.
"""

import dataclasses
from typing import Any

import numpy as np
import scipy.stats

GUESSED = (0.02, 0.1, 0.25, 0.5)
"""Shares of the canaries that are guessed to be in, highest scores first: fixed beforehand."""

FALSE_POSITIVE_RATE = 1e-3
"""The rate at which the true positive rate of membership inference is stated."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one kind of canary tells.

    Attributes:
      included: Canaries that were in.
      left_out: Canaries that were not.
      epsilon: Lower bound on epsilon; 0 if nothing can be said.
      auc: Area under the curve of true over false positives; 0.5 by chance.
      true_positive_rate: The rate of true positives at `FALSE_POSITIVE_RATE`.
    """

    included: int
    left_out: int
    epsilon: float
    auc: float
    true_positive_rate: float


def flip_coins(count: int, generator: np.random.Generator) -> np.ndarray:
    """Whether each canary is in, bool[M]: independent fair coins, as the bound requires."""
    return generator.random(count) < 0.5


def examine(
    scores: np.ndarray, is_included: np.ndarray, *, delta: float, confidence: float
) -> Finding:
    """Bounds epsilon from below.

    Args:
      scores: float[M]; higher where a canary seems to be in. Functions of the released model and of
        public values alone.
      is_included: bool[M], the coins.
      delta: The delta of the guarantee that is held against the bound.
      confidence: In (0, 1); the chance that a true guarantee is not contradicted. The numbers of
        guesses in `GUESSED` share it.

    Returns:
      The finding.

    Raises:
      ValueError: If a score is not finite, all coins fell alike, or jax_privacy is missing.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; give a number in (0, 1).")
    if not np.isfinite(scores).all():
        raise ValueError("A canary's score is not finite; the run diverged.")
    if is_included.all() or not is_included.any():
        raise ValueError(f"All {len(scores)} coins fell alike; give more canaries.")
    auditing = _auditing()
    auditor = auditing.CanaryScoreAuditor(scores[is_included], scores[~is_included])
    ordered = np.sort(scores)[::-1]
    thresholds = {float(ordered[max(1, round(x * len(scores))) - 1]) for x in GUESSED}
    bounds = [
        auditor.epsilon_one_run(
            significance=(1 - confidence) / len(GUESSED),
            delta=delta,
            threshold_strategy=auditing.Explicit(threshold),
        )
        for threshold in thresholds
    ]
    false, true = rates(scores, is_included)
    above = scipy.stats.mannwhitneyu(scores[is_included], scores[~is_included]).statistic
    return Finding(
        included=int(is_included.sum()),
        left_out=int((~is_included).sum()),
        epsilon=float(max(bounds)),
        auc=float(above / (is_included.sum() * (~is_included).sum())),
        true_positive_rate=float(true[false <= FALSE_POSITIVE_RATE].max()),
    )


def rates(scores: np.ndarray, is_included: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every threshold, float[M + 1] each, from 0 to 1."""
    hits = is_included[np.argsort(-scores, kind="stable")]
    false = np.concatenate([[0.0], np.cumsum(~hits) / max(1, (~hits).sum())])
    true = np.concatenate([[0.0], np.cumsum(hits) / max(1, hits.sum())])
    return false, true


def _auditing() -> Any:
    """The optional package that computes the bound."""
    try:
        from jax_privacy import auditing  # An optional package.
    except ImportError as error:
        raise ValueError("Auditing needs jax_privacy; run: pip install 'memarc[audit]'") from error
    return auditing
