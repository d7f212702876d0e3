"""A classifier without a head: the label whose words a decoder finds likeliest after a row.

Each row is read once for each label, with the label's words behind it, and the label's logit is the
log-likelihood of these words (Schick and Schuetze 2021, arXiv:2001.07676; Brown et al. 2020,
arXiv:2005.14165). So words may be of any number of tokens, and the start is what the pre-trained
model says; a step does C times the work of one with a linear head.

Axes: B batch (or [B, R], where an example is several sequences), C labels, T tokens of a row,
W tokens of the longest words, S = T + W, D width, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from memarc.batches import ATTENTION_MASK, INPUT_IDS
from memarc.models import backbone, head
from memarc.models.classifier import Classifier
from memarc.models.model import Model
from memarc.typing import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class LabelWords(Classifier):
    """Chooses the label whose words follow a row best; all that is trained is the method's."""

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Makes the method's start from public weights; there is no head to draw."""
        return Model.init(self, key, params)

    def precompute(self, frozen: Params, batch: Batch) -> Batch:
        """Puts every label's words behind every row, and does the method's part."""
        return super().precompute(frozen, {**batch, **followed_by(self.head.words, batch)})

    def logits(self, trainable: Params, frozen: Params, batch: Batch) -> Array:
        """Computes the log-likelihood of each label's words in nats, float32[B, C]."""
        states = self.method.states(trainable["tuning"], frozen, batch)  # [B, C, S, D]
        ids, lengths = table_of(self.head.words)
        mask = batch[ATTENTION_MASK]  # [B, C, S]
        like_ids = (1,) * (mask.ndim - 2) + ids.shape
        # A state predicts the next token: the first word is read off the row's last token.
        before = head.last_token(mask)[..., None] - lengths.reshape(*like_ids[:-1], 1)
        step = np.arange(ids.shape[1], dtype=np.int32).reshape(*(1,) * (mask.ndim - 1), -1)
        places = before + step
        read = jnp.take_along_axis(states, places[..., None], axis=-2)  # [B, C, W, D]
        params = self.method.parameters(trainable["tuning"], frozen)
        read = backbone.norm_last(self.method.config, params, read)
        found = jax.nn.log_softmax(backbone.output_logits(self.method.config, params, read))
        wanted = jnp.broadcast_to(ids.reshape(like_ids), places.shape)
        nats = jnp.take_along_axis(found, wanted[..., None], axis=-1)[..., 0]  # [B, C, W]
        is_word = np.arange(ids.shape[1]) < lengths[:, None]
        return jnp.where(is_word.reshape(like_ids), nats, jnp.zeros_like(nats)).sum(-1)

    def row_mask(self, batch: Batch) -> Array:
        """The tokens of each row behind which the first label's words stand."""
        return batch[ATTENTION_MASK][..., 0, :]


def table_of(words: tuple[tuple[int, ...], ...]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of words int32[C, W], filled up with 0, and their numbers int32[C]."""
    lengths = np.array([len(ids) for ids in words], np.int32)
    ids = np.zeros((len(words), lengths.max()), np.int32)
    for row, some in zip(ids, words, strict=True):
        row[: len(some)] = some
    return ids, lengths


def followed_by(words: tuple[tuple[int, ...], ...], batch: Batch) -> dict[str, Array]:
    """Puts the words of every label behind the last real token of every row.

    Args:
      words: The ids of each label's words.
      batch: Ids and mask, int32[B, T]; rows may be filled up on either side.

    Returns:
      Ids and mask, int32[B, C, S]. A row without any token is not followed by words.
    """
    ids, lengths = table_of(words)
    mask = batch[ATTENTION_MASK]
    ones = (1,) * (mask.ndim - 1)
    last = head.last_token(mask)[..., None, None]  # [B, 1, 1]
    size = mask.shape[-1] + ids.shape[1]
    place = np.arange(size, dtype=np.int32).reshape(*ones, 1, -1) - last - 1  # [B, 1, S]
    is_word = (place >= 0) & (place < lengths.reshape(*ones, -1, 1))  # [B, C, S]
    is_word &= jnp.any(mask != 0, axis=-1)[..., None, None]
    which = np.arange(len(words), dtype=np.int32).reshape(*ones, -1, 1)
    word = jnp.asarray(ids)[which, jnp.clip(place, 0, ids.shape[1] - 1)]  # [B, C, S]

    def put(row: Array, value: Array) -> Array:
        longer = jnp.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, ids.shape[1])])
        return jnp.where(is_word, value, longer[..., None, :]).astype(row.dtype)

    return {INPUT_IDS: put(batch[INPUT_IDS], word), ATTENTION_MASK: put(mask, jnp.ones_like(word))}
