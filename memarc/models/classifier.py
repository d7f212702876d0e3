"""Models with a head on a backbone's states: a classifier, and one that gives a number.

Axes: B batch, R sequences of an example that has several, C classes.
"""

import abc
import dataclasses
from typing import ClassVar

import jax

from memarc import batches
from memarc.models import backbone, head
from memarc.models.head import HeadConfig, ValueHeadConfig
from memarc.models.model import Model
from memarc.typing import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Headed(Model):
    """A backbone, a tuning method and a head.

    Attributes:
      head: How the head reads the states.
    """

    head: HeadConfig | ValueHeadConfig

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Makes the start from public weights (`Model.init`), and draws or copies the head."""
        tuning_key, head_key = jax.random.split(key)
        trainable, frozen = super().init(tuning_key, params)
        return {**trainable, "head": self.start(head_key, params)}, frozen

    @abc.abstractmethod
    def start(self, key: Array, params: Params) -> Params:
        """Makes the head's start from a key and the backbone's parameters."""

    def logits(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes what the head gives, float32[B, C] or [B, R, C], after `precompute`."""
        states = self.method.states(trainable["tuning"], frozen, batch)
        if self.method.config.parts.final_norm:
            params = self.method.parameters(trainable["tuning"], frozen)
            states = backbone.norm_last(self.method.config, params, states)
        return head.logits(self.head, trainable["head"], states, batch)


@dataclasses.dataclass(frozen=True)
class Classifier(Headed):
    """Chooses one of C labels.

    Attributes:
      head: Pooling and number of classes, and how labels weigh in the loss.
    """

    head: HeadConfig

    kind: ClassVar[str] = batches.CLASSIFICATION

    def start(self, key: Array, params: Params) -> Params:
        """Draws the head, or copies words of the output table."""
        if self.head.words:
            return head.of_words(self.head, backbone.output_table(params))
        return head.init(self.head, self.method.config.width, key)

    def loss(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes the cross entropy of each label in nats, float32[B]: a mean over sequences."""
        logits = self.logits(trainable, frozen, batch)
        losses = head.cross_entropy(self.head, logits, batch[batches.LABELS])
        return head.mean_of_sequences(losses, self.row_mask(batch))

    def row_mask(self, batch: Batch) -> Array:
        """The tokens that a batch after `precompute` has of each row, int32[B, T] or [B, R, T]."""
        return batch[batches.ATTENTION_MASK]


@dataclasses.dataclass(frozen=True)
class Regressor(Headed):
    """Gives a number, as a share of the task's range.

    Attributes:
      head: The pooling and the form.
    """

    head: ValueHeadConfig

    kind: ClassVar[str] = batches.REGRESSION

    def start(self, key: Array, params: Params) -> Params:
        """Draws the head."""
        del params
        return head.init_value(self.head, self.method.config.width, key)

    def loss(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes the squared error of each share, float32[B]: a mean over sequences."""
        given = self.logits(trainable, frozen, batch)[..., 0]
        losses = (given - batch[batches.LABELS].astype(given.dtype)) ** 2
        return head.mean_of_sequences(losses, batch[batches.ATTENTION_MASK])
