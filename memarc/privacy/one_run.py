"""Lower bounds on epsilon from guesses about many canaries of one run.

Every canary was in or out by a fair coin of its own, and an auditor who sees the release guesses
some of the coins. Two bounds tell what so many right guesses contradict:

- `epsilon_of_guesses` needs nothing but the coins (Steinke et al. 2023, Privacy Auditing with One
  (1) Training Run, arXiv:2305.08846, theorem 5.2).
- `is_contradicted` holds for mechanisms of one trade-off curve (Mahloujifar et al. 2024, Auditing
  f-Differential Privacy in One Run, arXiv:2410.22235, algorithm 3), and is tighter: a claim of one
  epsilon and delta leaves the rest of the curve open.

Axes: E points of a curve.
"""

import dataclasses
import functools

import numpy as np
import scipy.optimize
import scipy.stats

_MOST_EPSILON = 64.0
"""Above it a bound is not looked for: guesses that are all right do not contradict so much."""


@dataclasses.dataclass(frozen=True)
class Guesses:
    """How an auditor did.

    Attributes:
      canaries: Canaries with a coin of their own, guessed or not.
      made: Guesses, a number that was fixed beforehand.
      right: Guesses that were right.
    """

    canaries: int
    made: int
    right: int

    def __post_init__(self) -> None:
        """Checks the order of the numbers."""
        if not 0 <= self.right <= self.made <= self.canaries:
            raise ValueError(
                f"{self.right} of {self.made} guesses about {self.canaries} canaries are right; "
                "give at most as many guesses as canaries, and right ones as guesses."
            )


@dataclasses.dataclass(frozen=True)
class Curve:
    """A privacy curve: delta as a function of epsilon, for adding and for removing one row.

    Attributes:
      epsilons: float[E], from 0 up, increasing.
      deltas: float[E], upper bounds.
    """

    epsilons: np.ndarray
    deltas: np.ndarray

    @functools.cached_property
    def _factors(self) -> np.ndarray:
        """exp(epsilon) at each point."""
        return np.exp(self.epsilons)

    def least(self, chance: float) -> float:
        """The least chance of an event on a data set, if it is ``chance`` on a neighbour."""
        found = (
            (chance - self.deltas) / self._factors,
            1 - self.deltas - self._factors * (1 - chance),
        )
        return float(max(0.0, found[0].max(), found[1].max()))


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """The chance that an (epsilon, delta) private mechanism lets so many guesses be right."""
    share = 1 / (1 + np.exp(-epsilon))
    tail = scipy.stats.binom.sf(guesses.right - 1, guesses.made, share)
    numbers = np.arange(1, guesses.right + 1)
    below = scipy.stats.binom.sf(guesses.right - numbers - 1, guesses.made, share) - tail
    slope = np.max(below / numbers, initial=0.0)
    return float(min(1.0, tail + 2 * guesses.canaries * delta * slope))


def epsilon_of_guesses(guesses: Guesses, *, delta: float, confidence: float) -> float:
    """The largest epsilon that the guesses contradict; 0 if there is none.

    Args:
      guesses: How the auditor did.
      delta: The delta of the claim.
      confidence: In (0, 1); the chance that a true claim is not contradicted.
    """

    def excess(epsilon: float) -> float:
        return p_value(guesses, epsilon, delta) - (1 - confidence)

    if excess(0.0) >= 0:
        return 0.0
    if excess(_MOST_EPSILON) < 0:
        return _MOST_EPSILON
    root = scipy.optimize.brentq(excess, 0.0, _MOST_EPSILON, xtol=1e-6)
    return float(np.asarray(root))


def is_contradicted(guesses: Guesses, curve: Curve, *, confidence: float) -> bool:
    """Whether no mechanism within a privacy curve lets so many guesses be right by chance.

    If the chance of at least ``right`` right guesses were 1 - confidence or more, then the curve,
    applied to one canary after the other, says how often fewer are right at least, and that must
    leave room for the number of guesses that were made.

    Args:
      guesses: How the auditor did.
      curve: What the mechanism promises.
      confidence: In (0, 1); the chance that a true curve is not contradicted.
    """
    # Chances that a canary chosen at random is guessed rightly, or wrongly, and at least so many
    # guesses are right; from ``right`` downwards.
    rightly = (1 - confidence) * guesses.right / guesses.canaries
    wrongly = (1 - confidence) * (guesses.made - guesses.right) / guesses.canaries
    for number in range(guesses.right - 1, -1, -1):
        more = max(wrongly, curve.least(rightly))
        if more == wrongly:
            break  # Then all that follows is as it is.
        rightly = min(1.0, rightly + number / (guesses.made - number) * (more - wrongly))
        wrongly = more
    return rightly + wrongly > guesses.made / guesses.canaries
