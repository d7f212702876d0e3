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

from memarc.batches import ATTENTION_MASK
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


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """How states become logits.

    Attributes:
      pooling: "first" takes the first token, "last" the last real one, whatever side is filled up,
        "mean" the mean of real tokens; "words" reads no state
        (`memarc.models.label_words.LabelWords`).
      classes: C.
      words: Ids of the words that stand for the labels (Schick and Schuetze 2021,
        arXiv:2001.07676). With pooling "last" each is one token, and the head starts as their rows
        of a decoder's output table, so that labels are as likely as the pre-trained model finds
        their words; () starts at random. With "words" each may be several tokens.
      bias: Whether the map has a bias; transformers' decoders that classify have none.
      class_weights: What the loss of each label is multiplied by; () weighs all alike.
      smoothing: Label smoothing of the training loss, in [0, 1): so much of the wanted
        probability goes to all labels alike.
      form: "linear" is one map of the pooled state. "dense_tanh" is a dense map [D, D], tanh and a
        map, as the heads of BERT, RoBERTa (and its like) and MPNet in transformers; "dense_gelu" is
        ELECTRA's, "dense_relu" DistilBERT's. Both maps are drawn, and both are trained; there is
        no dropout between.
    """

    pooling: str = "first"
    classes: int = 2
    words: tuple[tuple[int, ...], ...] = ()
    bias: bool = True
    class_weights: tuple[float, ...] = ()
    smoothing: float = 0.0
    form: str = LINEAR

    def __post_init__(self) -> None:
        """Checks every field."""
        check_choice("pooling", self.pooling, (*POOLINGS, WORDS))
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
        if self.pooling == WORDS and not self.words:
            raise ValueError("head.pooling is 'words', and head.words is (); give each label's.")
        if not self.words:
            return
        if self.pooling not in ("last", WORDS):
            raise ValueError(
                f"head.pooling is {self.pooling!r}; words follow the 'last' token, where they "
                "start a map, or they decide themselves, with pooling 'words'."
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
        if min(map(len, self.words)) < 1 or (self.pooling == "last" and longest > 1):
            raise ValueError(
                f"head.words have {[len(x) for x in self.words]} tokens; each has at least one, "
                "and with head.pooling 'last' one alone: head.pooling 'words' takes longer ones."
            )


@dataclasses.dataclass(frozen=True)
class ValueHeadConfig:
    """How states become one number, a share of the task's range.

    Attributes:
      pooling: As of `HeadConfig`.
      form: As of `HeadConfig`.
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


def of_words(config: HeadConfig, table: Array) -> Params:
    """The map whose logits are those of words in a decoder's output table [V, D]."""
    rows = jnp.asarray(table)[jnp.asarray([ids[0] for ids in config.words])]
    return {"kernel": rows.T.astype(wide(rows.dtype)), **_zero_bias(config)}


def _zero_bias(config: HeadConfig) -> Params:
    """The bias at its start, if there is one."""
    return {"bias": jnp.zeros((config.classes,))} if config.bias else {}


def logits(
    config: HeadConfig | ValueHeadConfig, params: Params, states: Array, batch: Batch
) -> Array:
    """Maps states [B, T, D] to logits float32[B, C], or to one number each, [B, 1]."""
    states = states.astype(params["kernel"].dtype)
    pooled = _pool(config.pooling, states, batch[ATTENTION_MASK])
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


def _pool(pooling: str, states: Array, attention_mask: Array) -> Array:
    """[B, T, D] -> [B, D]; an all-padding row pools to zero rather than NaN."""
    if pooling == "first":
        return states[..., 0, :]
    if pooling == "last":
        last = last_token(attention_mask)
        return jnp.take_along_axis(states, last[..., None, None], axis=-2)[..., 0, :]
    weights = attention_mask.astype(states.dtype)
    total = jnp.einsum("...td,...t->...d", states, weights)
    return total / jnp.maximum(weights.sum(-1), 1.0)[..., None]
