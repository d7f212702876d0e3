"""Labels chosen by the likelihood of their words, against a language model that reads them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models import backbone
from memarc.models.build import build
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.models.label_words import followed_by
from memarc.models.language import LanguageConfig
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum
from tests.models import by_row

WORDS = ((21,), (4, 7, 9), (4, 2))
HEAD = HeadConfig("words", 3, words=WORDS)
OPTIONS = {"side": {"reduction": 2}}
LLAMA = make_config(
    "llama",
    vocab_size=23,
    width=24,
    layers=2,
    heads=6,
    kv_heads=3,
    feed_forward=40,
    max_positions=13,
    norm_epsilon=1e-5,
    activation="silu",
    dtype="float32",
    has_table=True,
)


def wide():
    """The decoder in float64, once the fixture allows that."""
    return dataclasses.replace(LLAMA, dtype="float64")


@pytest.fixture
def given(float64, randomise):
    """Makes trainable and frozen parameters of a method's classifier."""

    def make(method):
        config, key = wide(), jax.random.key(3)
        model = build(method, OPTIONS.get(method, {}), config, HEAD)
        shapes = jax.eval_shape(lambda: model.init(key, backbone.init(config, key)))
        return model, randomise(shapes[0], scale=0.1), randomise(shapes[1], seed=1)

    return make


def by_hand(batch, side):
    """Each row with each label's words behind it, one after the other, and where these stand."""
    size = batch["input_ids"].shape[1] + 3
    ids, mask, is_target = np.zeros((3, 15, size), np.int32)
    for i in range(15):
        row, words = divmod(i, 3)
        real = np.asarray(batch["attention_mask"][row]) != 0
        text = [*np.asarray(batch["input_ids"][row])[real], *WORDS[words]]
        start = 0 if side == "right" else np.argmax(real)
        place = slice(start, start + len(text))
        ids[i, place], mask[i, place] = text, 1
        is_target[i, place.stop - len(WORDS[words]) : place.stop] = 1
    return {"input_ids": ids, "attention_mask": mask, "is_target": is_target}


def filled_up_on_the_left(batch):
    turned = {name: np.array(x) for name, x in batch.items()}
    for i, length in enumerate(np.asarray(batch["attention_mask"]).sum(1)):
        for name in ("input_ids", "attention_mask"):
            turned[name][i] = np.roll(turned[name][i], -length)
    return turned


def test_words_stand_behind_the_last_real_token_of_either_side(rows):
    for side, batch in ("right", rows()), ("left", filled_up_on_the_left(rows())):
        got, wanted = followed_by(WORDS, batch), by_hand(batch, side)
        mask = np.asarray(got["attention_mask"]).reshape(15, -1)
        np.testing.assert_array_equal(mask, wanted["attention_mask"])
        found = np.asarray(got["input_ids"]).reshape(15, -1)
        np.testing.assert_array_equal(found * mask, wanted["input_ids"])


@pytest.mark.parametrize("method", ["lora", "side", "reversible"])
def test_a_logit_is_the_log_likelihood_of_a_labels_words(given, rows, fast_jit, method):
    model, trainable, frozen = given(method)
    assert set(trainable) == {"tuning"}
    writer = build(method, OPTIONS.get(method, {}), wide(), LanguageConfig())

    def both(trainable, frozen, batch, written):
        got = model.logits(trainable, frozen, model.precompute(frozen, batch))
        return got, writer.surprise(trainable, frozen, written)[0]

    batch = rows()
    got, nats = fast_jit(both)(trainable, frozen, batch, by_hand(batch, "right"))
    np.testing.assert_allclose(got, -np.asarray(nats).reshape(5, 3), rtol=1e-9)


@pytest.mark.checklist(16, 24)
@pytest.mark.parametrize("engine", ["ghost", pytest.param("book_keeping", marks=pytest.mark.slow)])
def test_engines_give_one_sum(given, rows, fast_jit, engine):
    model, trainable, frozen = given("lora")
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

    found = fast_jit(functools.partial(by_row.gradients, model))(trainable, frozen, rows())
    wanted, aux = by_row.clipped(found, 0.5, left_out)
    got, other = fast_jit(total)(trainable, frozen, rows())
    assert (np.asarray(aux["norms"]) > 0.5).any()
    np.testing.assert_allclose(other["norms"], aux["norms"], rtol=1e-9)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_rows_of_a_person_are_one_example(given, rows, fast_jit):
    """The loss is the mean over the rows that are there; one that is not has no words either."""
    model, trainable, frozen = given("lora")
    batch = rows()

    def losses(trainable, frozen, batch):
        return model.loss(trainable, frozen, model.precompute(frozen, batch))

    alone = np.asarray(fast_jit(losses)(trainable, frozen, batch))
    people = {name: jnp.asarray(np.asarray(x)[[[0, 2], [4, 1]]]) for name, x in batch.items()}
    people["attention_mask"] = people["attention_mask"].at[1, 1].set(0)
    got = fast_jit(losses)(trainable, frozen, people)
    np.testing.assert_allclose(got, [(alone[0] + alone[2]) / 2, alone[4]], rtol=1e-9)


def test_what_has_no_words_is_refused(sizes):
    with pytest.raises(ValueError, match="bert encoder has no table of words"):
        build("lora", {}, sizes(), HEAD)
    with pytest.raises(ValueError, match=r"'head' trains a map, and head.pooling 'words' has none"):
        build("head", {}, LLAMA, HEAD)
