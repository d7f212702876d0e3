"""Finds the least noise that keeps a promise: the inverse of `memarc.privacy.accounting`."""

import dataclasses
import math
from typing import Any

import scipy.optimize

from memarc.privacy import accounting
from memarc.privacy.sampling import PoissonSampler

_LEAST_NOISE, _MOST_NOISE = 2.0**-6, 2.0**14
"""Noise multipliers between which calibration searches."""

_TOLERANCE = {"rdp": 1e-5, "pld": 1e-4}
"""How close calibration comes to the multiplier, relatively."""

_COARSER = {"rdp": 1, "pld": 8}
"""How many times coarser the grid is on which the multiplier is sought first."""

_MOVES = 4
"""How many times the fine grid is asked before the coarse one is given up."""


@dataclasses.dataclass(frozen=True)
class _Promise:
    """What is to be kept, and on which grid it is measured; fields as of `calibrate_noise`."""

    sampler: PoissonSampler
    epsilon: float
    delta: float
    steps: int
    accountant: str
    coarser: int = 1

    def spent(self, noise_multiplier: float) -> float:
        """Epsilon of a run with this noise."""
        part = accounting.Spending(self.sampler, noise_multiplier, self.steps)
        return accounting.composed_epsilon(
            (part,), delta=self.delta, accountant=self.accountant, coarser=self.coarser
        )

    def log_excess(self, log_noise: float) -> float:
        """The logarithm of spent over promised epsilon, hardly curved in that of the noise."""
        # Clamped, because epsilon may be 0 or infinite at an end of the bracket.
        return math.log(min(max(self.spent(math.exp(log_noise)), 1e-12), 1e12) / self.epsilon)


def calibrate_noise(
    sampler: PoissonSampler, *, epsilon: float, delta: float, steps: int, accountant: str
) -> float:
    """The smallest noise multiplier that keeps the run within (epsilon, delta).

    Args:
      sampler: What draws the batches.
      epsilon: Target above 0; infinity gives 0.
      delta: In (0, 1).
      steps: Number of noised updates, at least 1.
      accountant: "rdp" or "pld", by which the same promise takes 7 to 9 % less noise.

    Returns:
      The multiplier, rounded up to five significant digits (so that a record shows the number
      that ran) and no lower than 2**-6; its epsilon is at most the target.

    Raises:
      ValueError: If an argument is out of range or no multiplier up to 2**14 is enough.

    >>> sampler = PoissonSampler(num_examples=50_000, sampling_rate=0.02)
    >>> noise_multiplier = calibrate_noise(
    ...     sampler, epsilon=8.0, delta=1e-5, steps=150, accountant="rdp")
    >>> round(noise_multiplier, 3)
    0.597
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon is {epsilon}; give a number above 0, or infinity for no noise.")
    if steps < 1:
        raise ValueError(f"steps is {steps}; give at least 1.")
    if math.isinf(epsilon):
        return 0.0
    if accountant == "pld" and delta < accounting.PLD_LEAST_DELTA:
        raise ValueError(
            f"delta is {delta}; PLD bounds nothing below {accounting.PLD_LEAST_DELTA}. Give "
            "accountant 'rdp', or a larger delta."
        )
    accounting.check_accountant(accountant)
    promise = _Promise(sampler, epsilon, delta, steps, accountant)
    tolerance, root = _TOLERANCE[accountant], _from_rough(promise)
    if root is None:
        bracket = _bracket(promise)
        if bracket is None:
            raise ValueError(f"No noise multiplier reaches epsilon {epsilon} at delta {delta}.")
        if bracket[0] < _LEAST_NOISE:
            return bracket[1]
        root = _root_between(promise, *bracket)
    for padding in range(1, 10):
        rounded = _round_up(math.exp(root) * (1 + padding * tolerance / 2), digits=5)
        if promise.spent(rounded) <= epsilon:
            return rounded
    raise ArithmeticError("Epsilon rose with the noise multiplier; the accountant is unsound.")


def _bracket(promise: _Promise) -> tuple[float, float] | None:
    """Two multipliers, of which the larger keeps the promise and the smaller does not.

    None if no multiplier up to `_MOST_NOISE` keeps it; the smaller is below `_LEAST_NOISE` if
    less noise than that does.
    """
    low, high = 0.5, 1.0
    while promise.spent(high) > promise.epsilon:
        low, high = high, 2 * high
        if high > _MOST_NOISE:
            return None
    while low >= _LEAST_NOISE and promise.spent(low) <= promise.epsilon:
        low, high = low / 2, low
    return low, high


def _root_between(promise: _Promise, low: float, high: float) -> float:
    """The logarithm of the multiplier that spends what is promised, between two multipliers."""
    enough = _TOLERANCE[promise.accountant] / 2
    root: Any = scipy.optimize.brentq(
        promise.log_excess, math.log(low), math.log(high), xtol=enough
    )
    return root


def _from_rough(promise: _Promise) -> float | None:
    """Finds the root on a coarse grid, and moves along its slope to that on the fine one.

    PLD takes its time for the points of its grid. Two moves are enough, except of very many steps,
    of which a coarse grid says far too much.

    Returns:
      The logarithm of the multiplier; None if there is no coarser grid, or it does not help.
    """
    rough = dataclasses.replace(promise, coarser=_COARSER[promise.accountant])
    bracket = _bracket(rough) if rough != promise else None
    if bracket is None or bracket[0] < _LEAST_NOISE:
        return None
    log_noise = _root_between(rough, *bracket)
    slope = (rough.log_excess(log_noise + 0.01) - rough.log_excess(log_noise)) / 0.01
    for _ in range(_MOVES):
        move = promise.log_excess(log_noise) / slope
        log_noise -= move
        if abs(move) < _TOLERANCE[promise.accountant] / 2:
            return log_noise
    return None


def _round_up(value: float, *, digits: int) -> float:
    """The next number from ``value`` up that has so many significant digits."""
    exponent = math.floor(math.log10(value)) - digits + 1
    candidate = float(f"{math.ceil(value * 10.0**-exponent)}e{exponent}")
    return max(candidate, value)
