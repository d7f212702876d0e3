"""Losses that couple the rows of a batch are told, whatever couples them, and no others are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.ops.linear import linear
from memarc.privacy.apart import check_apart, check_precompute_apart, random_rows
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import ENGINES, clipped_grad_sum

WIDTH = 4
TRAINABLE = {"w": jnp.full((WIDTH, 3), 0.3)}
SHAPES = {
    "x": jax.ShapeDtypeStruct((7, WIDTH), jnp.float32),
    "labels": jax.ShapeDtypeStruct((7,), jnp.int32),
}


def losses(trainable, x):
    return jnp.sum(jnp.square(linear(x, trainable["w"])), axis=1)


def sound(trainable, frozen, batch):
    del frozen
    return losses(trainable, batch["x"])


def mean_in_every_row(trainable, frozen, batch):
    own = sound(trainable, frozen, batch)
    return jnp.broadcast_to(own.mean(keepdims=True), own.shape)


def batch_normalised(trainable, frozen, batch):
    del frozen
    x = batch["x"]
    return losses(trainable, (x - x.mean(0, keepdims=True)) / (x.std(0, keepdims=True) + 1e-3))


def weights_over_their_mean(trainable, frozen, batch):
    weights = 1.0 + batch["labels"].astype(jnp.float32) + jnp.abs(batch["x"][:, 0])
    return sound(trainable, frozen, batch) * weights / weights.mean(keepdims=True)


def gradient_alone(trainable, frozen, batch):
    """The second row's loss is its own; its gradient is not."""
    own = sound(trainable, frozen, batch)
    total = jnp.broadcast_to(own.sum(keepdims=True), own.shape)
    return own + total - jax.lax.stop_gradient(total)


@pytest.mark.checklist(27, 46)
@pytest.mark.parametrize(
    "loss", [mean_in_every_row, batch_normalised, weights_over_their_mean, gradient_alone]
)
def test_a_loss_that_couples_rows_is_refused(loss):
    with pytest.raises(ValueError, match=r"couples examples: another row .* changes loss or grad"):
        check_apart(loss, TRAINABLE, {}, random_rows(SHAPES))


@pytest.mark.checklist(27)
def test_a_sound_loss_passes_and_so_does_one_that_is_not_a_number():
    check_apart(sound, TRAINABLE, {}, random_rows(SHAPES))
    check_apart(lambda t, f, b: jnp.log(-sound(t, f, b)), TRAINABLE, {}, random_rows(SHAPES))


@pytest.mark.checklist(27)
def test_what_is_computed_ahead_is_checked_too():
    def centred(frozen, batch):
        del frozen
        return {**batch, "x": batch["x"] - batch["x"].mean(0, keepdims=True)}

    rows = random_rows(SHAPES)
    with pytest.raises(ValueError, match="changes loss or gradient"):
        check_apart(sound, TRAINABLE, {}, rows, precompute=centred)
    with pytest.raises(ValueError, match="changes what is precomputed of a row"):
        check_precompute_apart(centred, {}, rows)
    check_precompute_apart(lambda frozen, batch: {**batch, "x": 2.0 * batch["x"]}, {}, rows)


@pytest.mark.checklist(27)
@pytest.mark.parametrize("engine", ENGINES)
def test_no_engine_takes_a_mean_over_the_batch(engine):
    def mean(trainable, frozen, batch):
        return sound(trainable, frozen, batch).mean()

    rows = random_rows(SHAPES)
    with pytest.raises(ValueError, match=r"one loss per example, shape \(B,\), not a mean"):
        clipped_grad_sum(
            mean,
            TRAINABLE,
            {},
            rows,
            np.zeros(2, bool),
            clipping=Clipping(1.0, "abadi"),
            engine=engine,
            microbatch_size=2,
        )
    with pytest.raises(ValueError, match=r"gave shape \(\) for a batch of 2 rows"):
        check_apart(mean, TRAINABLE, {}, rows)


def test_random_rows_differ_and_have_the_shapes_of_a_batch():
    rows = random_rows(SHAPES)
    assert rows["x"].shape == (2, WIDTH) and rows["labels"].dtype == np.int32
    assert not np.array_equal(rows["x"][0], rows["x"][1])
