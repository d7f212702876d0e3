"""The heads of classification and regression: pool the states, then one linear map, or two.

Axes: B batch (or [B, R], where an example is several sequences), R sequences of an example,
T tokens, D width, C classes, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from memarc.batches import ATTENTION_MASK, INPUT_IDS
from memarc.ops.linear import linear
from memarc.ops.precision import wide
from memarc.typing import Array, Batch, Params

POOLINGS = ("first", "mean", "last")
"""How the states of a row become one, which a linear map reads."""

LINEAR = "linear"
"""The form of a head that is one map; all others are two maps with a function between."""

_BETWEEN: Mapping[str, Callable[[Array], Array]] = {
    "dense_tanh": jnp.tanh,
    "dense_gelu": partial(jax.nn.gelu, approximate=False),
    "dense_relu": jax.nn.relu,
}
FORMS = (LINEAR, *_BETWEEN)
"""One map; or a dense map [D, D], a function and a map, as transformers' encoders classify."""

WORDS = "words"
"""In the place of a pooling: no map reads the states; what a decoder makes of words decides."""

MASK = "mask"
"""The pooling that reads the mask token, through an encoder's masked-language head."""


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """How states become logits.

    Attributes:
      pooling: "first" takes the first token, "last" the last real one, whatever side is filled up,
        "mean" the mean of real tokens; "words" reads no state
        (`memarc.models.label_words.LabelWords`); "mask" takes the mask token, as an encoder's
        masked-language head transforms it (`memarc.models.backbone.transform`).
      classes: C.
      words: Ids of the words that stand for the labels (Schick and Schuetze 2021,
        arXiv:2001.07676). With pooling "last" each is one token, and the head starts as their rows
        of a decoder's output table, so that labels are as likely as the pre-trained model finds
        their words; () starts at random. With "mask" they are rows of the word table and of its
        bias, and must be given. With "words" each may be several tokens.
      bias: Whether the map has a bias; transformers' decoders that classify have none.
      class_weights: What the loss of each label is multiplied by; () weighs all alike.
      smoothing: Label smoothing of the training loss, in [0, 1): so much of the wanted
        probability goes to all labels alike.
      form: "linear" is one map of the pooled state. "dense_tanh" is a dense map [D, D], tanh and a
        map, as the heads of BERT, RoBERTa (and its like) and MPNet in transformers; "dense_gelu" is
        ELECTRA's, "dense_relu" DistilBERT's. Both maps are drawn, and both are trained; there is
        no dropout between.
      mask_id: Id of the mask token, of pooling "mask"; None with all others.
    """

    pooling: str = "first"
    classes: int = 2
    words: tuple[tuple[int, ...], ...] = ()
    bias: bool = True
    class_weights: tuple[float, ...] = ()
    smoothing: float = 0.0
    form: str = LINEAR
    mask_id: int | None = None

    def __post_init__(self) -> None:
        """Checks every field."""
        check_choice("pooling", self.pooling, (*POOLINGS, WORDS, MASK))
        if (self.mask_id is None) == (self.pooling == MASK):
            raise ValueError(
                f"head.pooling is {self.pooling!r} and mask_id {self.mask_id}; pooling 'mask' "
                "needs the id of the tokenizer's mask token, and others read none."
            )
        check_choice("form", self.form, FORMS)
        if not 0.0 <= self.smoothing < 1.0:
            raise ValueError(f"head.smoothing is {self.smoothing}; give a number in [0, 1).")
        if self.class_weights and len(self.class_weights) != self.classes:
            raise ValueError(
                f"head.class_weights has {len(self.class_weights)} numbers; give one for each of "
                f"{self.classes} labels."
            )
        if not all(0.0 < weight < math.inf for weight in self.class_weights):
            raise ValueError(
                f"head.class_weights is {self.class_weights}; give finite numbers above 0."
            )
        if self.classes < 2:
            raise ValueError(f"A classification head needs 2 classes or more, not {self.classes}.")
        self._check_words()

    def _check_words(self) -> None:
        """Raises ValueError for words that the pooling has no use for, or too few or many."""
        if self.pooling in (WORDS, MASK) and not self.words:
            raise ValueError(
                f"head.pooling is {self.pooling!r}, and head.words is (); give each label's."
            )
        if not self.words:
            return
        if self.pooling not in ("last", WORDS, MASK):
            raise ValueError(
                f"head.pooling is {self.pooling!r}; words follow the 'last' token, where they "
                "start a map, or they decide themselves, with pooling 'words'; or an encoder "
                "fills a mask with them, with pooling 'mask'."
            )
        if self.pooling == MASK and not self.bias:
            raise ValueError(
                "head.bias is False, and head.pooling 'mask' starts from the bias of each word: "
                "leave it True."
            )
        if self.form != LINEAR:
            raise ValueError(
                f"head.form is {self.form!r}, and head.words are given, which start or stand for "
                "one map: leave head.form 'linear'."
            )
        if len(self.words) != self.classes:
            raise ValueError(
                f"{len(self.words)} words stand for {self.classes} labels; give one each."
            )
        longest = max(map(len, self.words))
        if min(map(len, self.words)) < 1 or (self.pooling != WORDS and longest > 1):
            raise ValueError(
                f"head.words have {[len(x) for x in self.words]} tokens; each has at least one, "
                f"and with head.pooling {self.pooling!r} one alone: choose such words, or a "
                "decoder, of which head.pooling 'words' takes longer ones."
            )


@dataclasses.dataclass(frozen=True)
class ValueHeadConfig:
    """How states become one number, a share of the task's range.

    Attributes:
      pooling: How the head reads the states (`HeadConfig`).
      form: How many maps it has (`HeadConfig`).
    """

    pooling: str = "first"
    form: str = LINEAR

    def __post_init__(self) -> None:
        """Checks both fields."""
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("form", self.form, FORMS)


def check_choice(name: str, given: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError for a value of a field that is none of the choices."""
    if given not in choices:
        raise ValueError(f"head.{name} is {given!r}; choose one of {choices}.")


def init(config: HeadConfig, width: int, key: Array) -> Params:
    """Draws the maps; small, so that training starts near even odds."""
    params = _drawn(config.form, width, config.classes, key)
    return {**params, **_zero_bias(config)}


def init_value(config: ValueHeadConfig, width: int, key: Array) -> Params:
    """Draws the maps of a number; small, around the middle of the range."""
    return {**_drawn(config.form, width, 1, key), "bias": jnp.full((1,), 0.5)}


def _drawn(form: str, width: int, outputs: int, key: Array) -> Params:
    """Kernels N(0, 0.02^2), as transformers draws them, and a dense map's bias of zeros.

    The last map's draw is the same in every form.
    """
    params: Params = {"kernel": 0.02 * jax.random.normal(key, (width, outputs))}
    if form != LINEAR:
        kernel = 0.02 * jax.random.normal(jax.random.fold_in(key, 1), (width, width))
        params["dense"] = {"kernel": kernel, "bias": jnp.zeros((width,))}
    return params


def of_words(config: HeadConfig, table: Array, bias: Array | None = None) -> Params:
    """The map whose logits are those of words in an output table [V, D] and a bias [V]."""
    ids = jnp.asarray([ids[0] for ids in config.words])
    rows = jnp.asarray(table)[ids]
    params = {"kernel": rows.T.astype(wide(rows.dtype)), **_zero_bias(config)}
    if bias is not None:
        params["bias"] = jnp.asarray(bias)[ids].astype(params["kernel"].dtype)
    return params


def _zero_bias(config: HeadConfig) -> Params:
    """The bias at its start, if there is one."""
    return {"bias": jnp.zeros((config.classes,))} if config.bias else {}


def logits(config: HeadConfig | ValueHeadConfig, params: Params, pooled: Array) -> Array:
    """Maps pooled states [B, D] to logits float32[B, C], or to one number each, [B, 1]."""
    if config.form != LINEAR:
        dense = params["dense"]
        pooled = _BETWEEN[config.form](linear(pooled, dense["kernel"], dense["bias"]))
    return linear(pooled, params["kernel"], params.get("bias"))


def cross_entropy(config: HeadConfig, logits: Array, labels: Array) -> Array:
    """Loss of each sequence in nats, [B], of logits [B, C] against labels int32[B]."""
    log_probabilities = jax.nn.log_softmax(logits)
    losses = -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]
    if config.smoothing:
        even = -log_probabilities.mean(axis=-1)
        losses = (1.0 - config.smoothing) * losses + config.smoothing * even
    if config.class_weights:
        losses = losses * jnp.asarray(config.class_weights, losses.dtype)[labels]
    return losses


def mean_of_sequences(losses: Array, attention_mask: Array) -> Array:
    """One loss an example: the mean over its sequences that have any token.

    Args:
      losses: [B], or [B, R] where an example is several sequences.
      attention_mask: int32[B, T] or [B, R, T].

    Returns:
      [B]; 0 where no sequence of several has a token.
    """
    if losses.ndim == 1:
        return losses
    is_there = jnp.any(attention_mask != 0, axis=-1)  # [B, R]
    total = jnp.sum(jnp.where(is_there, losses, jnp.zeros_like(losses)), axis=-1)
    return total / jnp.maximum(jnp.sum(is_there, axis=-1), 1).astype(losses.dtype)


def last_token(attention_mask: Array) -> Array:
    """The place of the last real token, int32[B] of int32[B, T]; T - 1 where there is none."""
    behind = jnp.argmax(attention_mask[..., ::-1], axis=-1).astype(jnp.int32)
    return attention_mask.shape[-1] - 1 - behind


def mask_token(batch: Batch, mask_id: int) -> Array:
    """The place of the first mask token, int32[B]; 0 where there is none."""
    is_mask = (batch[INPUT_IDS] == mask_id) & (batch[ATTENTION_MASK] != 0)
    return jnp.argmax(is_mask, axis=-1).astype(jnp.int32)


def pool(config: HeadConfig | ValueHeadConfig, states: Array, batch: Batch) -> Array:
    """Makes one state of those of a row.

    Args:
      config: How.
      states: [B, T, D].
      batch: Ids and mask, int32[B, T].

    Returns:
      [B, D], float32 or wider. The mean of an all-padding row is zero rather than NaN.
    """
    states, attention_mask = states.astype(wide(states.dtype)), batch[ATTENTION_MASK]
    if config.pooling == "first":
        return states[..., 0, :]
    if isinstance(config, HeadConfig) and config.mask_id is not None:
        return _at(states, mask_token(batch, config.mask_id))
    if config.pooling == "last":
        return _at(states, last_token(attention_mask))
    weights = attention_mask.astype(states.dtype)
    total = jnp.einsum("...td,...t->...d", states, weights)
    return total / jnp.maximum(weights.sum(-1), 1.0)[..., None]


def _at(states: Array, place: Array) -> Array:
    """The state [B, D] of each row at a place int32[B]."""
    return jnp.take_along_axis(states, place[..., None, None], axis=-2)[..., 0, :]
