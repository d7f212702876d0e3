"""What a batch holds, by kind of task: the one place that states keys, shapes and dtypes.

Axes: B examples, R sequences of an example that has several, T tokens.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from memarc.typing import Array

CLASSIFICATION, REGRESSION, GENERATION = KINDS = ("classification", "regression", "generation")
"""Kinds of tasks: to choose one of some labels, to give a number, or to write a text."""

INPUT_IDS = "input_ids"
"""Ids of tokens; short rows are filled up with an id that the tokenizer names."""

ATTENTION_MASK = "attention_mask"
"""1 at tokens, 0 at what fills up."""

TOKEN_TYPE_IDS = "token_type_ids"
"""1 at tokens of a second text, where the tokenizer tells them apart."""

IS_TARGET = "is_target"
"""1 at tokens that a model is to write."""

LABELS = "labels"
"""Positions in the task's labels, int32[B]; in regression shares of its range, float32[B].

[B, R] where an example is several sequences.
"""

COINS = "coins"
"""Two fresh random words for each example, uint32[B, 2], where a tuning method asks for them."""

PER_TOKEN: Mapping[str, tuple[str, ...]] = {
    CLASSIFICATION: (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS),
    REGRESSION: (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS),
    GENERATION: (INPUT_IDS, ATTENTION_MASK, IS_TARGET),
}
"""Kind -> keys of int32[B, T], or int32[B, R, T] where an example is several sequences."""

LABEL_DTYPES: Mapping[str, jnp.dtype] = {
    CLASSIFICATION: jnp.dtype(jnp.int32),
    REGRESSION: jnp.dtype(jnp.float32),
}
"""Kind -> dtype of its labels; a kind that is not here has none."""


def abstract(
    kind: str, rows: int, length: int, group: tuple[int, ...] = ()
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch, of which nothing is allocated.

    Args:
      kind: One of `KINDS`.
      rows: B.
      length: T.
      group: () where an example is one sequence, or (R,).

    Returns:
      Key -> shape and dtype.
    """
    tokens = jax.ShapeDtypeStruct((rows, *group, length), jnp.int32)
    batch = dict.fromkeys(PER_TOKEN[kind], tokens)
    if kind in LABEL_DTYPES:
        batch[LABELS] = jax.ShapeDtypeStruct((rows, *group), LABEL_DTYPES[kind])
    return batch


def random(
    kind: str, key: Array, rows: int, length: int, *, vocab_size: int, classes: int = 2
) -> dict[str, Array]:
    """A batch of random tokens, which are public: for checks before training and measurements.

    Args:
      kind: One of `KINDS`.
      key: A key of `jax.random`.
      rows: B.
      length: T; every row has so many tokens, and all are targets where there are any.
      vocab_size: Ids are drawn from 2 up to below it: lower ones often fill up rows.
      classes: Labels go round in 0 to ``classes - 1``; in regression they are all 0.

    Returns:
      Key -> array, as `abstract` gives its shape.
    """
    values = {
        INPUT_IDS: jax.random.randint(key, (rows, length), min(2, vocab_size - 1), vocab_size),
        ATTENTION_MASK: jnp.ones((rows, length), jnp.int32),
        TOKEN_TYPE_IDS: jnp.zeros((rows, length), jnp.int32),
        IS_TARGET: jnp.ones((rows, length), jnp.int32),
        LABELS: jnp.arange(rows, dtype=jnp.int32) % classes,
    }
    if kind == REGRESSION:
        values[LABELS] = jnp.zeros((rows,), jnp.float32)
    return {name: values[name] for name in abstract(kind, rows, length)}
