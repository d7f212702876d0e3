"""Canaries of an audit: rows that are in or out by coins, and the model that tells of them.

A text canary is a row of random tokens with a random label, scored by its loss. A gradient canary
is a row whose gradient is one coordinate of its own, at the full clip norm: the strongest that the
mechanism allows; it is scored by that released coordinate.

Axes: B batch, K gradient canaries.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from memarc.batches import LABELS
from memarc.data.dataset import Dataset, padded_chunks
from memarc.data.tokenize import Encoded, TokenizerInfo
from memarc.models.classifier import Classifier
from memarc.ops.linear import take_rows
from memarc.privacy import audit, sampling
from memarc.runs.parts import Run
from memarc.typing import Array, Batch, Params

CANARIES = "canaries"
"""Top level of the trainable tree under which gradient canaries have their coordinates."""

_STEEPNESS = 1e4
"""Gradient of a gradient canary before clipping: far above any clip norm."""


@dataclasses.dataclass(frozen=True)
class Slots:
    """Where canaries stand among the rows: text canaries after the rows, gradient canaries last.

    Attributes:
      rows: Rows of the train set.
      text: Text canaries.
      gradient: Gradient canaries.
    """

    rows: int
    text: int
    gradient: int

    @property
    def total(self) -> int:
        """Rows and canaries, in or not."""
        return self.rows + self.text + self.gradient

    def is_present(self, entropy: int) -> np.ndarray:
        """bool[total]: all rows, and the canaries whose coins say so."""
        generator = sampling.step_generator(entropy, 0)
        coins = audit.flip_coins(self.text + self.gradient, generator)
        return np.concatenate([np.ones(self.rows, bool), coins])


@dataclasses.dataclass(frozen=True)
class WithCanaries(Classifier):
    """A classifier with a coordinate for each gradient canary, which nothing but its row moves.

    Labels of gradient canaries count on after the classes. The trainable tree is the classifier's
    with `CANARIES` beside its parts, so that the optimizer treats these as it does in a run.

    Attributes:
      count: K.
    """

    count: int = 0

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Starts the classifier, and all coordinates at zero, float32[K, 1]."""
        trainable, frozen = super().init(key, params)
        return {**trainable, CANARIES: jnp.zeros((self.count, 1))}, frozen

    def loss(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """The classifier's loss [B], or a steep slope along its own coordinate of a canary."""
        number = batch[LABELS] - self.head.classes  # [B]; negative for rows that are no canary.
        is_canary = number >= 0
        coordinate = take_rows(trainable[CANARIES], jnp.maximum(number, 0)[:, None])[:, 0, 0]
        labels = jnp.minimum(batch[LABELS], self.head.classes - 1)
        plain = super().loss(trainable, frozen, {**batch, LABELS: labels})
        return jnp.where(is_canary, _STEEPNESS * coordinate, plain)


def with_canaries(run: Run, slots: Slots) -> Dataset:
    """The train set of a run and all canaries, which are public; only their coins are not."""
    train, info = run.splits.train, run.codec.info
    assert train.labels is not None  # Audits are of classification.
    classes = len(run.settings.record_of_task.labels)
    rng = np.random.default_rng(0)
    length = max(1, train.max_length // 4)
    sizes = np.concatenate([np.full(slots.text, length), np.ones(slots.gradient, int)])
    labels = [
        train.labels,
        rng.integers(classes, size=slots.text),
        classes + np.arange(slots.gradient),
    ]
    return Dataset(
        encoded=_extended(train.encoded, info, rng, sizes),
        labels=np.concatenate(labels).astype(train.labels.dtype),
        members=None,
        pad_id=train.pad_id,
        max_length=train.max_length,
    )


def losses_of_texts(
    run: Run, model: Classifier, trainable: Params, frozen: Params, dataset: Dataset, slots: Slots
) -> np.ndarray:
    """Losses of the text canaries under the released parameters, float[text]."""

    @jax.jit
    def losses(trainable: Params, batch: Batch) -> Array:
        return model.loss(trainable, frozen, model.precompute(frozen, batch))

    numbers = slots.rows + np.arange(slots.text)  # All of one length, so in their order.
    rows, buckets = run.settings.training.eval_batch_size, run.splits.buckets
    return np.concatenate(
        [
            np.asarray(losses(trainable, batch))[~is_padding]
            for _, batch, is_padding in padded_chunks(numbers, dataset, buckets, rows)
        ]
    )


def _extended(
    encoded: Encoded, info: TokenizerInfo, rng: np.random.Generator, sizes: np.ndarray
) -> Encoded:
    """Encoded rows and further ones of random words, of which ``sizes`` says how many tokens."""
    words = np.setdiff1d(np.arange(info.vocab_size), info.special_ids)
    drawn = rng.choice(words, sizes.sum()).astype(np.int32)
    first, *others = encoded.tokens
    more = {first: drawn, **dict.fromkeys(others, np.zeros_like(drawn))}
    return Encoded(
        tokens={name: np.concatenate([encoded.tokens[name], more[name]]) for name in more},
        offsets=np.concatenate([encoded.offsets, encoded.offsets[-1] + np.cumsum(sizes)]),
        truncated_rows=encoded.truncated_rows,
    )
