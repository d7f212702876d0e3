"""An example of several rows has the mean of their losses, one gradient, and one clip.

The oracle takes the gradient of every row by itself, through the model of single rows.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models.build import build
from memarc.models.head import HeadConfig, ValueHeadConfig, mean_of_sequences
from memarc.models.methods import METHODS
from memarc.privacy.clipping import Clipping, clip_factors
from memarc.privacy.engines import ENGINES, clipped_grad_sum

HEADS = {
    "first": HeadConfig("first", 3),
    "mean": HeadConfig("mean", 3, smoothing=0.1, class_weights=(1.0, 2.0, 0.5)),
    "last": HeadConfig("last", 3),
    "number": ValueHeadConfig("mean"),
}

PLACES = np.array([[0, 1, 4], [3, 2, 2], [4, 0, 0], [1, 3, 0]])  # B 4, R 3.
IS_THERE = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
"""People of three rows, two and one; the last has none, as what fills up a batch."""

IS_PADDING = np.array([False, False, False, True])


def grouped(rows):
    """Examples of several rows; what stands at absent ones is of other rows, under no mask."""
    batch = {name: jnp.asarray(np.asarray(x)[PLACES]) for name, x in rows.items()}
    mask = np.asarray(batch["attention_mask"]) * IS_THERE[..., None]
    return {**batch, "attention_mask": jnp.asarray(mask.astype(np.int32))}


def made(method, head, cfg, weights, randomise):
    """A model in float64, with trainables drawn away from their start."""
    model = build(method, {}, cfg, HEADS[head])
    trainable, frozen = model.init(jax.random.key(3), weights(cfg))
    return model, randomise(trainable, scale=0.2), frozen


def of_single_rows(model, trainable, frozen, rows, jit):
    """Losses [5] and gradients, leaves [5, ..], of each row as an example of its own."""

    def losses(trainable):
        return model.loss(trainable, frozen, model.precompute(frozen, rows))

    def both(trainable):
        values, pullback = jax.vjp(losses, trainable)
        return values, jax.lax.map(lambda row: pullback(row)[0], jnp.eye(len(values)))

    return jit(both)(trainable)


def of_people(values):
    """Means [3, ..] over the rows of the three people, of values [5, ..] of rows."""
    pairs = zip(PLACES[:3], IS_THERE[:3], strict=True)
    return np.stack([np.asarray(values)[places[is_there]].mean(0) for places, is_there in pairs])


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_of_a_person_is_the_mean_of_the_rows_that_are_there(
    float64, sizes, weights, randomise, rows, fast_jit, head
):
    cfg, given = sizes(dtype="float64"), rows()
    if head == "number":
        given = {**given, "labels": jnp.linspace(0.0, 1.0, 5, dtype=jnp.float32)}
    model, trainable, frozen = made("head", head, cfg, weights, randomise)
    losses, _ = of_single_rows(model, trainable, frozen, given, fast_jit)
    batch = grouped(given)
    found = fast_jit(lambda t: model.loss(t, frozen, model.precompute(frozen, batch)))(trainable)
    np.testing.assert_allclose(found[:3], of_people(losses), rtol=1e-12)
    assert found[3] == 0.0


OFTEN = {("lora", "vmap"), ("lora", "ghost"), ("lora", "book_keeping")}


@pytest.mark.checklist("32b", 24, "19b")
@pytest.mark.parametrize(
    ("method", "engine"),
    [
        pytest.param(method, engine, marks=[pytest.mark.slow] * ((method, engine) not in OFTEN))
        for method in METHODS
        for engine in ENGINES
    ],
)
def test_every_engine_clips_once_a_person(
    float64, once, sizes, weights, randomise, rows, fast_jit, method, engine
):
    cfg, given = sizes(dtype="float64"), rows()
    model, trainable, frozen = made(method, "mean", cfg, weights, randomise)
    _, gradients = once(method, lambda: of_single_rows(model, trainable, frozen, given, fast_jit))
    means = jax.tree.map(of_people, gradients)
    norms = np.sqrt(sum(np.square(x).reshape(3, -1).sum(1) for x in jax.tree.leaves(means)))
    clip = Clipping(float(np.median(norms)), "abadi")
    factors = clip_factors(jnp.asarray(norms), clip)
    assert 0 < (factors < 0.99).sum() < 3  # Some are clipped and some are not.
    wanted = jax.tree.map(lambda x: np.tensordot(factors, x, 1), means)
    run = functools.partial(
        clipped_grad_sum,
        model.loss,
        clipping=clip,
        engine=engine,
        microbatch_size=3,
        precompute=model.precompute,
    )
    found, aux = fast_jit(run)(trainable, frozen, grouped(given), jnp.asarray(IS_PADDING))
    np.testing.assert_allclose(aux["norms"], [*norms, 0.0], rtol=1e-9)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-12)
    jax.tree.map(close, found, wanted)


def test_means_of_sequences_by_hand():
    losses = jnp.array([[1.0, 4.0], [2.0, jnp.inf], [jnp.nan, jnp.nan]])
    mask = jnp.array([[[1, 0], [0, 1]], [[1, 1], [0, 0]], [[0, 0], [0, 0]]])
    assert mean_of_sequences(losses, mask).tolist() == [2.5, 2.0, 0.0]
    assert mean_of_sequences(losses[:, 0], mask[:, 0])[:2].tolist() == [1.0, 2.0]
