"""Decoders that classify: by their last token, and from the likelihood of words for the labels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models import backbone
from memarc.models.build import build
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum
from tests.backbone_shapes import shapes_of
from tests.models import by_row

SIZES = {
    "vocab_size": 23,
    "width": 24,
    "layers": 2,
    "heads": 6,
    "kv_heads": 3,
    "feed_forward": 40,
    "max_positions": 13,
    "norm_epsilon": 1e-5,
    "activation": "silu",
}
WORDS = ((21,), (4,), (9,))
LONGER = ((21,), (4, 7, 9), (4, 2))


def llama(dtype="float32"):
    return make_config("llama", **SIZES, dtype=dtype, has_table=True)


def params_of(config, randomise):
    return randomise(shapes_of(config), seed=1)


@pytest.mark.parametrize("method", ["lora", "reversible"])
def test_labels_start_as_likely_as_the_language_model_finds_their_words(
    randomise, rows, fast_jit, method
):
    config = llama()
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params_of(config, randomise))
    classifier = build(method, {}, config, HeadConfig("last", 3, words=WORDS))
    writer = build(method, {}, config, LanguageConfig())
    trainable, frozen = fast_jit(classifier.init)(jax.random.key(3), params)

    def both(trainable, frozen, batch):
        batch = classifier.precompute(frozen, batch)
        states = classifier.method.states(trainable["tuning"], frozen, batch)
        last = batch["attention_mask"].sum(1) - 1
        read = jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0]
        return classifier.logits(trainable, frozen, batch), writer.logits(trainable, frozen, read)

    got, wanted = fast_jit(both)(trainable, frozen, rows())
    np.testing.assert_allclose(got, wanted[:, jnp.array(WORDS)[:, 0]], rtol=1e-5, atol=1e-5)


@pytest.mark.checklist(16, 24)
@pytest.mark.parametrize(
    ("head", "engine"),
    [
        (HeadConfig("last", 3, words=WORDS), "ghost"),
        (HeadConfig("words", 3, words=LONGER), "ghost"),
        pytest.param(HeadConfig("words", 3, words=LONGER), "book_keeping", marks=pytest.mark.slow),
    ],
)
def test_engines_give_one_sum(float64, randomise, rows, fast_jit, head, engine):
    config = llama("float64")
    model = build("lora", {}, config, head)
    key = jax.random.key(3)
    shapes = jax.eval_shape(lambda: model.init(key, backbone.init(config, key)))
    given = randomise(shapes[0], scale=0.1), randomise(shapes[1], seed=1), rows()
    left_out = np.arange(5) == 3

    def total(trainable, frozen, batch):
        return clipped_grad_sum(
            model.loss,
            trainable,
            frozen,
            batch,
            left_out,
            clipping=Clipping(0.5, "abadi"),
            engine=engine,
            microbatch_size=3,
            precompute=model.precompute,
        )

    found = fast_jit(functools.partial(by_row.gradients, model))(*given)
    wanted, aux = by_row.clipped(found, 0.5, left_out)
    got, other = fast_jit(total)(*given)
    assert np.abs(np.asarray(aux["norms"]) - 0.5).min() > 1e-3
    assert (np.asarray(aux["norms"]) > 0.5).any()
    np.testing.assert_allclose(other["norms"], aux["norms"], rtol=1e-9)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_what_a_head_cannot_read_is_refused(sizes):
    with pytest.raises(ValueError, match="first token reads no other: choose 'last' or 'mean'"):
        build("lora", {}, llama(), HeadConfig("first", 2))
    with pytest.raises(
        ValueError, match=r"bert encoder has no table of words but for a mask .*; leave head.words"
    ):
        build("lora", {}, sizes(), HeadConfig("last", 2, words=((3,), (4,))))
