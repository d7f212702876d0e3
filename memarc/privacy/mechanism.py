"""Fixes sampler, clipping bound, noise scale and accounting together, so they cannot disagree."""

import dataclasses
import functools
import math

import numpy as np
import optax

from memarc.privacy import accounting, calibration, noise, ways, zeroth_order
from memarc.privacy.auto import AUTO
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import check_engine
from memarc.privacy.sampling import PoissonSampler, Streams
from memarc.privacy.zeroth_order import Directions
from memarc.typing import Array


@dataclasses.dataclass(frozen=True)
class PrivacyConfig:
    """What a run promises and how it gets there.

    Attributes:
      epsilon: Target above 0; infinity runs the same code without noise.
      delta: In (0, 1 / number of examples).
      clip_norm: L2 bound per example, gradient units.
      clipping: "abadi" or "automatic".
      clipping_scope: "flat" or "per_layer".
      expected_batch_size: Mean size of a Poisson draw; also the public divisor.
      max_batch_size: None uses every draw whole; a number is the size to which larger draws are
        cut, which is accounted for.
      engine: A name in ``engines.ENGINES``, or "auto": chosen by compiled memory and work. Or
        "zeroth_order", which is no equal of theirs: slopes along one random direction a step, by
        forward passes alone, stand for gradients (`memarc.privacy.zeroth_order`).
      fit: What engine "auto" is chosen for; memory and speed only. "balanced" is the least
        product of memory and work at the run's rows and remat. "least_memory", "fastest", or the
        bytes that one device may use, such as "12GiB", choose rows at once and remat too
        (`memarc.privacy.ways`).
      microbatch_size: Rows differentiated at once, unless a ``fit`` chooses them; memory and
        speed only.
      physical_batch_size: Rows per compiled call; memory and speed only.
      noise_multiplier: None calibrates it to ``epsilon``; a number is the noise's standard
        deviation over the clip norm, and must keep the run within ``epsilon``.
      accountant: Whose ``epsilon`` it is, "pld" or "rdp" (`memarc.privacy.accounting`). Both are
        proofs of the same kind; "pld" takes 7 to 9 % less noise, "rdp" is that of most papers,
        and does not cover ``max_batch_size``.
      probe: How far from the parameters losses are taken along a direction, both ways, in units of
        its standard normal values; above 0. Only "zeroth_order" reads it.
    """

    epsilon: float
    delta: float
    clip_norm: float = 1.0
    clipping: str = "abadi"
    clipping_scope: str = "flat"
    expected_batch_size: int = 1024
    max_batch_size: int | None = None
    engine: str = AUTO
    fit: str = ways.BALANCED
    microbatch_size: int = 32
    physical_batch_size: int = 32
    noise_multiplier: float | None = None
    accountant: str = "pld"
    probe: float = 1e-3

    def __post_init__(self) -> None:
        """Checks all that needs no number of examples."""
        if not self.epsilon > 0:
            raise ValueError(
                f"epsilon is {self.epsilon}; give a number above 0, or infinity for no noise."
            )
        check_engine(self.engine, AUTO, zeroth_order.NAME)
        zeroth_order.check_probe(self.probe)
        ways.limit_of(self.fit)
        if self.fit != ways.BALANCED and self.engine != AUTO:
            raise ValueError(
                f"privacy.fit is {self.fit!r} and privacy.engine {self.engine!r}: a fit chooses "
                f"the engine, so leave the engine {AUTO!r}, or the fit {ways.BALANCED!r}."
            )
        accounting.check_accountant(self.accountant)
        if not 1 <= self.microbatch_size <= self.physical_batch_size:
            raise ValueError(
                f"microbatch_size is {self.microbatch_size}; give 1 to physical_batch_size, "
                f"{self.physical_batch_size}."
            )
        if self.max_batch_size is not None and self.max_batch_size < self.expected_batch_size:
            raise ValueError(
                f"max_batch_size is {self.max_batch_size}, below expected_batch_size "
                f"{self.expected_batch_size}; give at least that, or None."
            )
        _ = self.rule  # Checks the three fields.
        if self.engine == zeroth_order.NAME and self.clipping_scope != "flat":
            raise ValueError(
                f"clipping_scope is {self.clipping_scope!r}; a slope is one number for all layers, "
                f'so engine {self.engine!r} takes "flat" alone.'
            )

    @property
    def rule(self) -> Clipping:
        """How the gradients of rows are clipped."""
        return Clipping(self.clip_norm, self.clipping, self.clipping_scope)

    def directions(self, key: Array) -> Directions | None:
        """The directions of a run from their key (`Streams`); None for engines that need none."""
        return Directions(key, self.probe) if self.engine == zeroth_order.NAME else None


@dataclasses.dataclass(frozen=True)
class Spent:
    """Privacy spent so far, for adding or removing one unit.

    Attributes:
      steps: Noised updates made.
      delta: The delta of both epsilons.
      epsilon_rdp: Epsilon by Renyi accounting; None where that does not cover the sampler
        (truncated draws).
      epsilon_pld: Epsilon by privacy loss distributions.
      accountant: The accountant of the promise, "rdp" or "pld"; the other is the cross-check.
    """

    steps: int
    delta: float
    epsilon_rdp: float | None
    epsilon_pld: float
    accountant: str

    @property
    def epsilon(self) -> float:
        """The epsilon that is reported: by the accountant of the promise."""
        by_both = {"rdp": self.epsilon_rdp, "pld": self.epsilon_pld}
        reported = by_both[self.accountant]
        if reported is None:
            raise ValueError("The rdp accountant does not cover this sampler; report 'pld'.")
        return reported


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """Poisson sampling, clipped sum, Gaussian noise once per step, division by a constant.

    Build it with ``Mechanism.create``. The number of examples is treated as public: the sampling
    rate is derived from it once, when the plan is made. The divisor is the plan's expected batch
    size and depends neither on it nor on any draw.

    Attributes:
      sampler: Draws the batches and is what the accountant reads.
      clipping: Bounds each row's gradient; its sensitivity scales the noise.
      noise_multiplier: Noise standard deviation over clip norm, unitless.
      divisor: Public constant, the expected batch size.
      delta: The delta of the guarantee.
      steps: Planned number of noised updates.
      unit: What one example is: what is added or removed between neighbouring data sets.
      accountant: The accountant that keeps the promise, "rdp" or "pld".
    """

    sampler: PoissonSampler
    clipping: Clipping
    noise_multiplier: float
    divisor: int
    delta: float
    steps: int
    unit: str
    accountant: str

    neighbouring = accounting.NEIGHBOURING

    @classmethod
    def create(
        cls, config: PrivacyConfig, *, num_examples: int, steps: int, unit: str
    ) -> "Mechanism":
        """Builds the mechanism of a run, calibrating its noise if the config gives none.

        Args:
          config: The promise.
          num_examples: N, public; the length of the training set of the plan.
          steps: Number of noised updates, at least 1.
          unit: What one example is, for records.

        Returns:
          A mechanism whose epsilon after ``steps`` is at most ``config.epsilon``.

        Raises:
          ValueError: If the config, N and ``steps`` cannot go together.

        >>> config = PrivacyConfig(epsilon=8.0, delta=1e-5, expected_batch_size=1000)
        >>> mechanism = Mechanism.create(config, num_examples=50_000, steps=150, unit="one row")
        >>> mechanism.sampling_rate, round(mechanism.noise_multiplier, 3)
        (0.02, 0.561)
        >>> mechanism.epsilon(150, "pld") <= 8.0 < mechanism.epsilon(150, "rdp")
        True
        """
        _check_plan(config, num_examples, steps)
        sampler = PoissonSampler(
            num_examples=num_examples,
            sampling_rate=config.expected_batch_size / num_examples,
            max_batch_size=config.max_batch_size,
        )
        noise_multiplier = config.noise_multiplier
        if noise_multiplier is None:
            noise_multiplier = calibration.calibrate_noise(
                sampler,
                epsilon=config.epsilon,
                delta=config.delta,
                steps=steps,
                accountant=config.accountant,
            )
        mechanism = cls(
            sampler=sampler,
            clipping=config.rule,
            noise_multiplier=noise_multiplier,
            divisor=config.expected_batch_size,
            delta=config.delta,
            steps=steps,
            unit=unit,
            accountant=config.accountant,
        )
        spent = mechanism.epsilon(steps, config.accountant)
        if spent > config.epsilon:
            raise ValueError(
                f"noise_multiplier {noise_multiplier} spends epsilon {spent:.4g} in {steps} steps "
                f"by {config.accountant}, above epsilon {config.epsilon}; raise one of them, or "
                "give None to calibrate."
            )
        return mechanism

    @property
    def sampling_rate(self) -> float:
        """Chance q of each row to join a batch."""
        return self.sampler.sampling_rate

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of the noise on the clipped sum, gradient units."""
        return self.noise_multiplier * self.clipping.sensitivity

    @property
    def event(self) -> accounting.Event:
        """The dp_accounting event of all planned steps."""
        return accounting.event(
            self.sampler, noise_multiplier=self.noise_multiplier, steps=self.steps
        )

    def sample(self, streams: Streams, step: int) -> np.ndarray:
        """Row numbers of one step's batch, int64[n] increasing; pure in (streams, step)."""
        return self.sampler.indices(streams.sampling, step)

    def gradient_transform(self, key: Array) -> optax.GradientTransformation:
        """The optax transformation from clipped sum to private gradient: noise, then divide."""
        return noise.privatize_sum(stddev=self.noise_stddev, divisor=self.divisor, key=key)

    def epsilon(self, steps: int, accountant: str) -> float:
        """Epsilon after ``steps`` noised updates by "rdp" (fast) or "pld" (about a second)."""
        return accounting.epsilon(
            self.sampler,
            noise_multiplier=self.noise_multiplier,
            steps=steps,
            delta=self.delta,
            accountant=accountant,
        )

    def spent(self, steps: int) -> Spent:
        """Gives both epsilons after ``steps`` noised updates."""
        epsilon = functools.partial(self.epsilon, steps)
        has_rdp = accounting.supports(self.sampler, "rdp")
        return Spent(
            steps=steps,
            delta=self.delta,
            epsilon_rdp=epsilon("rdp") if has_rdp else None,
            epsilon_pld=epsilon("pld"),
            accountant=self.accountant,
        )


def _check_plan(config: PrivacyConfig, num_examples: int, steps: int) -> None:
    """Raises ValueError where the config and the size of the plan cannot go together."""
    if num_examples < 1:
        raise ValueError(f"num_examples is {num_examples}; give at least 1.")
    if steps < 1:
        raise ValueError(f"steps is {steps}; give at least 1.")
    if not 1 <= config.expected_batch_size <= num_examples:
        raise ValueError(
            f"expected_batch_size is {config.expected_batch_size}; give 1 to the number of "
            f"examples, {num_examples}."
        )
    if not 0 < config.delta < 1 / num_examples:
        raise ValueError(
            f"delta is {config.delta}; give a number above 0 and below 1 / number of examples, "
            f"{1 / num_examples:.3g}."
        )
    if config.noise_multiplier is not None and not (
        math.isfinite(config.noise_multiplier) and config.noise_multiplier >= 0
    ):
        raise ValueError(
            f"noise_multiplier is {config.noise_multiplier}; give a finite number from 0 up, or "
            "None to calibrate."
        )
