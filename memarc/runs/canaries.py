"""Canaries of an audit: where they stand among the rows, and the run that holds them.

A gradient canary is a row whose gradient is one coordinate of its own, at the full clip norm: the
strongest that the mechanism allows. Other canaries are texts (`memarc.runs.canary_rows`).

Axes: B batch, K gradient canaries.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import optax

from memarc import batches
from memarc.models.model import Model
from memarc.ops.linear import take_rows
from memarc.privacy import audit, sampling, witness
from memarc.privacy.mechanism import Mechanism
from memarc.privacy.sampling import PoissonSampler
from memarc.runs.sections import CANARY_KINDS
from memarc.typing import Array, Batch, Params

CANARIES = "canaries"
"""Top level of the trainable tree under which gradient canaries have their coordinates."""

RANDOM, UNUSED, SAMPLED, GRADIENT = CANARY_KINDS

_STEEPNESS = 1e4
"""Gradient of a gradient canary before clipping: far above any clip norm."""

_FIRST_MARK = 2
"""``is_target`` of the first token of gradient canary 0; that of any other row is 0 or 1."""


@dataclasses.dataclass(frozen=True)
class Slots:
    """Where canaries stand among the rows: after them, a kind after the other.

    Attributes:
      rows: Rows of the train set.
      counts: Kind -> its number of canaries, in the order of `CANARY_KINDS`.
    """

    rows: int
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Rows and canaries, in or not."""
        return self.rows + sum(self.counts.values())

    def of(self, kind: str) -> np.ndarray:
        """Numbers of the canaries of a kind."""
        kinds = list(self.counts)
        start = self.rows + sum(self.counts[x] for x in kinds[: kinds.index(kind)])
        return start + np.arange(self.counts[kind])

    def is_present(self, entropy: int) -> np.ndarray:
        """bool[total]: all rows, and the canaries whose coins say so."""
        generator = sampling.step_generator(entropy, 0)
        coins = audit.flip_coins(self.total - self.rows, generator)
        return np.concatenate([np.ones(self.rows, bool), coins])


@dataclasses.dataclass(frozen=True)
class WithCanaries(Model):
    """A model with a coordinate for each gradient canary, which nothing but its row moves.

    The trainable tree is the model's with `CANARIES` beside its parts, so that the optimizer treats
    these as it does in a run. Which canary a row is stands where no ordinary row has such a value:
    labels of canaries count on after the classes, and where there are no labels, the mark of the
    first token counts from `_FIRST_MARK`.

    Attributes:
      base: The model.
      classes: Labels of ordinary rows; 0 in generation.
      count: K.
    """

    base: Model
    classes: int
    count: int

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Starts the model, and all coordinates at zero, float32[K, 1]."""
        trainable, frozen = self.base.init(key, params)
        return {**trainable, CANARIES: jnp.zeros((self.count, 1))}, frozen

    def loss(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes the model's loss [B], or a steep slope along its own coordinate of a canary."""
        number, plain = _number_of(batch, self.classes)  # [B]; negative for rows that are no canary
        coordinate = take_rows(trainable[CANARIES], jnp.maximum(number, 0)[:, None])[:, 0, 0]
        losses = self.base.loss(trainable, frozen, plain)
        return jnp.where(number >= 0, _STEEPNESS * coordinate, losses)


def _number_of(batch: Batch, classes: int) -> tuple[Array, Batch]:
    """Which gradient canary each row is [B], and the batch as the model reads it."""
    if batches.LABELS in batch:
        labels = batch[batches.LABELS]
        return labels - classes, {**batch, batches.LABELS: jnp.minimum(labels, classes - 1)}
    marks = batch[batches.IS_TARGET]  # [B, T]
    return marks[:, 0] - _FIRST_MARK, {**batch, batches.IS_TARGET: jnp.minimum(marks, 1)}


def mark_of(number: np.ndarray, classes: int) -> np.ndarray:
    """What `WithCanaries` knows a canary by: its label, or the mark of its first token."""
    return number + (classes or _FIRST_MARK)


@dataclasses.dataclass(frozen=True)
class WatchedMechanism(Mechanism):
    """A mechanism whose noised gradients are looked at; it releases what the mechanism releases."""

    def gradient_transform(self, key: Array) -> optax.GradientTransformation:
        """The mechanism's transformation, and a witness after it."""
        return optax.chain(
            super().gradient_transform(key),
            witness.watch(
                lambda tree: tree[CANARIES][:, 0],
                scale=self.clipping.clip_norm / self.divisor,
                sampling_rate=self.sampling_rate,
                noise_multiplier=self.noise_multiplier,
            ),
        )


def watched(mechanism: Mechanism, num_examples: int) -> WatchedMechanism:
    """The very mechanism of a run, over more rows: rate, noise, steps and divisor are the run's.

    Raises:
      ValueError: If draws are cut, which many canaries would change.
    """
    sampler = mechanism.sampler
    if sampler.max_batch_size is not None:
        raise ValueError(
            f"privacy.max_batch_size is {sampler.max_batch_size}; canaries would change how draws "
            "are cut. Give None for an audit."
        )
    fields = {x.name: getattr(mechanism, x.name) for x in dataclasses.fields(mechanism)}
    larger = PoissonSampler(num_examples, sampler.sampling_rate)
    return WatchedMechanism(**{**fields, "sampler": larger})
