"""Draws Poisson batches on the host, and derives all random streams from one root entropy.

A draw is a pure function of (entropy, step), so resuming needs no sampler state.
"""

import dataclasses
import secrets

import numpy as np

from memarc.privacy.noise import key_from_words
from memarc.typing import Array


@dataclasses.dataclass(frozen=True)
class PoissonSampler:
    """Every example joins every batch independently; the accountant reads this same object.

    Attributes:
      num_examples: N, public by assumption of the plan.
      sampling_rate: q in (0, 1], each example's chance to join.
      max_batch_size: None, or the size down to which a larger draw is cut by a uniformly random
        subset (truncated Poisson sampling, which costs privacy and is accounted as such).

    >>> sampler = PoissonSampler(num_examples=10, sampling_rate=0.5)
    >>> sampler.indices(entropy=3, step=0).tolist()
    [0, 2, 3, 9]
    """

    num_examples: int
    sampling_rate: float
    max_batch_size: int | None = None

    def __post_init__(self) -> None:
        """Checks all fields."""
        if self.num_examples < 1:
            raise ValueError(f"num_examples is {self.num_examples}; give at least 1.")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate is {self.sampling_rate}; give a number in (0, 1].")
        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise ValueError(f"max_batch_size is {self.max_batch_size}; give at least 1, or None.")

    def indices(self, entropy: int, step: int) -> np.ndarray:
        """Draws the row numbers of one step, as `poisson_indices` does."""
        return poisson_indices(
            entropy, step, self.num_examples, self.sampling_rate, self.max_batch_size
        )


@dataclasses.dataclass(frozen=True)
class Streams:
    """Independent sources of randomness, one per purpose; secret, so hidden from ``repr``.

    Attributes:
      sampling: 128-bit entropy for ``poisson_indices``.
      noise: A typed JAX key, the root of all noise (``Mechanism.gradient_transform``).
      initialisation: A typed JAX key, with which new parameters are drawn.
      coins: 128-bit entropy for the random words of rows (``step_generator``).
      canaries: 128-bit entropy that decides which canaries of an audit are in.
      directions: A typed JAX key, the root of all directions (`memarc.privacy.zeroth_order`).
    """

    sampling: int = dataclasses.field(repr=False)
    noise: Array = dataclasses.field(repr=False)
    initialisation: Array = dataclasses.field(repr=False)
    coins: int = dataclasses.field(repr=False)
    canaries: int = dataclasses.field(repr=False)
    directions: Array = dataclasses.field(repr=False)


def poisson_indices(
    entropy: int,
    step: int,
    num_examples: int,
    sampling_rate: float,
    max_batch_size: int | None = None,
) -> np.ndarray:
    """Draws one Poisson batch.

    Args:
      entropy: A non-negative integer, ``streams(root).sampling``.
      step: Update number, from 0.
      num_examples: N.
      sampling_rate: q; every row joins with this chance, independently.
      max_batch_size: If not None, a larger draw is cut to a uniformly random subset of this size.

    Returns:
      Row numbers in increasing order, int64[n], 0 <= n <= N; an empty batch is a valid draw.

    Raises:
      ValueError: If ``step`` or ``entropy`` is negative.
    """
    if step < 0 or entropy < 0:
        raise ValueError("step and entropy must not be negative.")
    generator = step_generator(entropy, step)
    drawn = np.flatnonzero(generator.random(num_examples) < sampling_rate)
    if max_batch_size is not None and drawn.size > max_batch_size:
        drawn = np.sort(generator.choice(drawn, max_batch_size, replace=False))
    return drawn.astype(np.int64)


def fresh_entropy() -> int:
    """Draws 128 bits from the operating system: what a run that claims privacy must use."""
    return secrets.randbits(128)


def entropy_from(seed: int | None) -> tuple[int, bool]:
    """Gives the root entropy, and whether it is reproducible: not private for who knows the seed.

    Args:
      seed: None for fresh entropy; a non-negative integer for research runs.

    Returns:
      The entropy, secret, and True if it came from a seed: record that with the result.

    Raises:
      ValueError: If ``seed`` is negative.
    """
    if seed is None:
        return fresh_entropy(), False
    if seed < 0:
        raise ValueError(f"seed is {seed}; give a non-negative integer, or None for fresh entropy.")
    return seed, True


def streams(entropy: int) -> Streams:
    """Derives the separate streams of a run from its root entropy.

    Args:
      entropy: The root entropy, which `entropy_from` or `fresh_entropy` gives.

    Returns:
      The streams; equal for equal entropy.
    """
    # Spawned children are independent of each other and of the parent; their order is fixed.
    children = np.random.SeedSequence(entropy).spawn(6)
    sampling, noise, initialisation, coins, canaries, directions = children
    return Streams(
        sampling=_entropy_of(sampling),
        noise=_key_of(noise),
        initialisation=_key_of(initialisation),
        coins=_entropy_of(coins),
        canaries=_entropy_of(canaries),
        directions=_key_of(directions),
    )


def step_generator(entropy: int, step: int) -> np.random.Generator:
    """The generator of one stream at one step; ``entropy`` is a field of `Streams`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy, spawn_key=(step,))))


def _entropy_of(sequence: np.random.SeedSequence) -> int:
    """An integer of 128 bits."""
    return int.from_bytes(sequence.generate_state(4, np.uint32).tobytes(), "little")


def _key_of(sequence: np.random.SeedSequence) -> Array:
    """A typed key of 64 bits."""
    first, second = sequence.generate_state(2, np.uint32)
    return key_from_words((int(first), int(second)))
