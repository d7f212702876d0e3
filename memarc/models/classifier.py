"""Models with a head on a backbone's states: a classifier, and one that gives a number.

Axes: B batch, R sequences of an example that has several, C classes.
"""

import abc
import dataclasses
from typing import ClassVar

import jax

from memarc import batches
from memarc.models import backbone, head, partition
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
        # The bias of words starts the head, and is of no further use.
        rest = partition.split(params, lambda path: path != backbone.WORD_BIAS)[0]
        trainable, frozen = super().init(tuning_key, rest)
        return {**trainable, "head": self.start(head_key, params)}, frozen

    @abc.abstractmethod
    def start(self, key: Array, params: Params) -> Params:
        """Makes the head's start from a key and the backbone's parameters."""

    def logits(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes what the head gives, float32[B, C] or [B, R, C], after `precompute`."""
        config = self.method.config
        states = self.method.states(trainable["tuning"], frozen, batch)
        params: Params = {}
        if config.parts.final_norm or config.transform:
            params = self.method.parameters(trainable["tuning"], frozen)
        if config.parts.final_norm:
            states = backbone.norm_last(config, params, states)
        pooled = head.pool(self.head, states, batch)
        if config.transform:
            pooled = backbone.transform(config, params, pooled)
        return head.logits(self.head, trainable["head"], pooled)


@dataclasses.dataclass(frozen=True)
class Classifier(Headed):
    """Chooses one of C labels.

    Attributes:
      head: Pooling and number of classes, and how labels weigh in the loss.
    """

    head: HeadConfig

    kind: ClassVar[str] = batches.CLASSIFICATION

    def start(self, key: Array, params: Params) -> Params:
        """Draws the head, or copies words of the output table and their bias."""
        if self.head.words:
            bias = params["final"].get(backbone.WORD_BIAS[-1])
            return head.of_words(self.head, backbone.output_table(params), bias)
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
