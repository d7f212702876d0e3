"""A classifier: a backbone, a tuning method and a linear head.

Axes: B batch, C classes.
"""

import dataclasses
from typing import ClassVar

import jax

from memarc import batches
from memarc.models import backbone, head
from memarc.models.head import HeadConfig
from memarc.models.model import Model
from memarc.typing import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Classifier(Model):
    """Chooses one of C labels.

    Attributes:
      head: Pooling and number of classes.
    """

    head: HeadConfig

    kind: ClassVar[str] = batches.CLASSIFICATION

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Makes the start from public weights (`Model.init`), and draws or copies the head."""
        tuning_key, head_key = jax.random.split(key)
        trainable, frozen = super().init(tuning_key, params)
        if self.head.words:
            start = head.of_words(self.head, backbone.output_table(params))
        else:
            start = head.init(self.head, self.method.config.width, head_key)
        return {**trainable, "head": start}, frozen

    def logits(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes logits, float32[B, C], of a batch after `precompute`."""
        states = self.method.states(trainable["tuning"], frozen, batch)
        if self.method.config.parts.final_norm:
            params = self.method.parameters(trainable["tuning"], frozen)
            states = backbone.norm_last(self.method.config, params, states)
        return head.logits(self.head, trainable["head"], states, batch)

    def loss(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes the cross entropy of each label in nats, float32[B]."""
        return head.cross_entropy(self.logits(trainable, frozen, batch), batch[batches.LABELS])
