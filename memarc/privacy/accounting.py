"""Turns a sampler, a noise multiplier and a number of steps into epsilon.

Neighbouring data sets differ by adding or removing one row.
"""

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Iterator

import dp_accounting
import numpy as np
from dp_accounting import pld, rdp

from memarc.privacy.sampling import PoissonSampler

ACCOUNTANTS = ("rdp", "pld")
"""The accountants: Renyi differential privacy, and privacy loss distributions."""

Event = dp_accounting.DpEvent
"""What an accountant reads: a mechanism and how often it runs."""

NEIGHBOURING = "add_or_remove_one"
"""The one neighbouring relation: sensitivity C (not 2C), as clipping states it."""

_RELATION = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE

PLD_LEAST_DELTA = 1e-14
"""Below it PLD answers with infinity: its convolutions cut off tails of 1e-15, and charge them."""


def event(sampler: PoissonSampler, *, noise_multiplier: float, steps: int) -> Event:
    """The accounting event of ``steps`` noised sums over batches drawn by ``sampler``.

    Args:
      sampler: What draws the batches. Only Poisson sampling is known: amplification holds for the
        sampler that really runs, so any other object is refused.
      noise_multiplier: Noise standard deviation over clip norm, unitless.
      steps: Number of noised updates.

    Returns:
      A dp_accounting event.

    Raises:
      ValueError: If the sampler is unknown or a number is out of range.
    """
    if not isinstance(sampler, PoissonSampler):
        raise ValueError(
            f"No accounting is known for a {type(sampler).__name__}; draw batches with a "
            "PoissonSampler. Shuffled or fixed batches have no Poisson amplification."
        )
    if not (math.isfinite(noise_multiplier) and noise_multiplier >= 0):
        raise ValueError(f"noise_multiplier is {noise_multiplier}; give a finite number from 0 up.")
    if steps < 0:
        raise ValueError(f"steps is {steps}; give a whole number from 0 up.")
    if sampler.max_batch_size is None or sampler.max_batch_size >= sampler.num_examples:
        gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
        one = dp_accounting.PoissonSampledDpEvent(sampler.sampling_rate, gaussian)
    else:
        one = dp_accounting.TruncatedSubsampledGaussianDpEvent(
            dataset_size=sampler.num_examples,
            sampling_probability=sampler.sampling_rate,
            truncated_batch_size=sampler.max_batch_size,
            noise_multiplier=noise_multiplier,
        )
    return dp_accounting.SelfComposedDpEvent(one, steps)


def supports(sampler: PoissonSampler, accountant: str) -> bool:
    """Whether an accountant knows the sampler's event: RDP does not know truncated sampling."""
    check_accountant(accountant)
    probe = event(sampler, noise_multiplier=1.0, steps=1)
    return _fresh_accountant(accountant, 1.0).supports(probe)


@dataclasses.dataclass(frozen=True)
class Spending:
    """Equal noised sums: what one run spends.

    Attributes:
      sampler: What draws the batches.
      noise_multiplier: Noise standard deviation over clip norm.
      steps: Number of noised updates.
    """

    sampler: PoissonSampler
    noise_multiplier: float
    steps: int

    @property
    def event(self) -> Event:
        """The accounting event of all these sums, as the function `event` makes it."""
        return event(self.sampler, noise_multiplier=self.noise_multiplier, steps=self.steps)


def epsilon(
    sampler: PoissonSampler, *, noise_multiplier: float, steps: int, delta: float, accountant: str
) -> float:
    """Epsilon at ``delta`` of one run; an upper bound by either accountant.

    Args:
      sampler: What draws the batches.
      noise_multiplier: Noise standard deviation over clip norm; 0 gives infinity.
      steps: Number of noised updates.
      delta: In (0, 1).
      accountant: "rdp" (fast) or "pld" (tighter).

    Returns:
      Epsilon for adding or removing one row.

    Raises:
      ValueError: If an argument is out of range, or the accountant cannot treat the sampler.

    >>> sampler = PoissonSampler(num_examples=50_000, sampling_rate=0.02)
    >>> round(epsilon(sampler, noise_multiplier=1.0, steps=150, delta=1e-5, accountant="rdp"), 2)
    2.05
    """
    return composed_epsilon(
        (Spending(sampler, noise_multiplier, steps),), delta=delta, accountant=accountant
    )


def composed_epsilon(
    parts: tuple[Spending, ...], *, delta: float, accountant: str, coarser: int = 1
) -> float:
    """Epsilon at ``delta`` of several runs on the same data; an upper bound by either accountant.

    Args:
      parts: What each run spends; a noise multiplier of 0 gives infinity, 0 steps add nothing.
      delta: In (0, 1). Below `PLD_LEAST_DELTA`, "pld" gives infinity.
      accountant: "rdp" (fast) or "pld" (tighter).
      coarser: How many times as far apart "pld" sets the points of its grid. Its epsilon is an
        upper bound on any grid, looser and sooner found on a coarser one.

    Returns:
      Epsilon for adding or removing one row.

    Raises:
      ValueError: If an argument is out of range, or the accountant cannot treat a sampler.
    """
    return _composed_epsilon(parts, delta, accountant, coarser)


@functools.lru_cache(maxsize=1024)
def _composed_epsilon(
    parts: tuple[Spending, ...], delta: float, accountant: str, coarser: int
) -> float:
    """Computes `composed_epsilon`, once for equal arguments however they are given."""
    check_accountant(accountant)
    if coarser < 1:
        raise ValueError(f"coarser is {coarser}; give a whole number from 1 up.")
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; give a number in (0, 1).")
    spending = [part for part in parts if part.event and part.steps]  # Making an event checks it.
    if any(part.noise_multiplier == 0 for part in spending):
        return math.inf
    for part in spending:
        if not supports(part.sampler, accountant):
            raise ValueError(
                f"The {accountant} accountant does not cover truncated Poisson sampling "
                f"(max_batch_size={part.sampler.max_batch_size}); use 'pld', or "
                "max_batch_size=None."
            )
    if not spending:
        return 0.0
    with _quiet_rdp():
        least = min(part.noise_multiplier for part in spending)
        total = _fresh_accountant(accountant, least, coarser)
        for part in spending:
            total.compose(part.event)
        return float(total.get_epsilon(delta))


def privacy_curve(part: Spending, epsilons: np.ndarray) -> np.ndarray:
    """Upper bounds on delta at each of some epsilons, for adding and for removing one row.

    Args:
      part: What one run spends; its noise multiplier is above 0.
      epsilons: float[E].

    Returns:
      float[E], by privacy loss distributions.

    Raises:
      ValueError: If an argument is out of range.
    """
    if not part.noise_multiplier > 0:
        raise ValueError("Without noise there is no privacy curve; give a multiplier above 0.")
    total = _fresh_accountant("pld", part.noise_multiplier).compose(part.event)
    return np.asarray(total.get_delta(epsilons))  # Its type says one number; it takes many.


def check_accountant(accountant: str) -> None:
    """Raises ValueError for an unknown accountant."""
    if accountant not in ACCOUNTANTS:
        raise ValueError(f"Unknown accountant {accountant!r}; choose one of {ACCOUNTANTS}.")


def _fresh_accountant(
    accountant: str, noise_multiplier: float, coarser: int = 1
) -> dp_accounting.PrivacyAccountant:
    """An accountant that has composed nothing; ``noise_multiplier`` is the least it will see."""
    if accountant == "rdp":
        return rdp.RdpAccountant(neighboring_relation=_RELATION)
    # A step's privacy loss spans about 1/(2 s^2) + 12/s. A coarser grid stays an upper bound; this
    # one costs 2e-4 of epsilon at most, and keeps little noise from asking for gigabytes.
    span = 0.5 / noise_multiplier**2 + 12 / noise_multiplier
    interval = coarser * max(1e-4, span / 3e4)
    return pld.PLDAccountant(neighboring_relation=_RELATION, value_discretization_interval=interval)


@contextlib.contextmanager
def _quiet_rdp() -> Iterator[None]:
    """Drops one harmless warning and turns one harmful warning into an error.

    An order whose series does not converge is left out, which only loosens epsilon. A negative
    Renyi divergence is rounding, and dp_accounting would answer it with epsilon 0.
    """
    negative = []

    def keep(record: logging.LogRecord) -> bool:
        message = str(record.msg)
        negative.extend([message] if message.startswith("Negative Renyi divergence") else [])
        return not message.startswith("_compute_log_a_frac failed to converge")

    logger = logging.getLogger("absl")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
    if negative:
        raise ArithmeticError("The RDP accountant lost all precision for this plan; use 'pld'.")
