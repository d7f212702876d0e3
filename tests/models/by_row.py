"""Sums of clipped gradients written out: each row's gradient by itself, clipped on the host.

The oracle of engines, in float64, whose one program does not depend on a bound or on rows that are
left out.

Axes: B batch.
"""

import jax
import jax.numpy as jnp
import numpy as np

from memarc.privacy.clipping import ROUNDING_SLACK


def gradients(model, trainable, frozen, batch):
    """Losses [B] and each row's gradient [B, ..]; to be compiled."""
    prepared = model.precompute(frozen, batch)
    losses, pullback = jax.vjp(lambda t: model.loss(t, frozen, prepared), trainable)
    return losses, jax.lax.map(lambda row: pullback(row)[0], jnp.eye(len(losses)))


def norms(found):
    """Of what `gradients` gives, each row's norm [B]."""
    squares = [np.square(x).reshape(len(x), -1).sum(1) for x in jax.tree.leaves(found[1])]
    return np.sqrt(sum(squares))


def clipped(found, bound, is_left_out):
    """What engines give by the rule "abadi": the sum, and norms and losses of the rows in it."""
    losses, by_row = jax.tree.map(np.asarray, found)
    is_added = ~np.asarray(is_left_out)
    most = bound * (1.0 - ROUNDING_SLACK)
    factors = is_added * most / np.maximum(norms(found), most)
    total = jax.tree.map(lambda x: np.tensordot(factors, x, 1), by_row)
    return total, {"norms": norms(found) * is_added, "losses": losses * is_added}
