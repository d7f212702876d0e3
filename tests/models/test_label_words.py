"""Labels chosen by the likelihood of their words, against a language model that reads them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models import backbone
from memarc.models.build import build
from memarc.models.head import HeadConfig
from memarc.models.label_words import followed_by
from memarc.models.language import LanguageConfig
from tests.models.test_decoder_classifier import LONGER as WORDS
from tests.models.test_decoder_classifier import llama

HEAD = HeadConfig("words", 3, words=WORDS)
OPTIONS = {"side": {"reduction": 2}}


@pytest.fixture
def given(float64, randomise):
    """Makes trainable and frozen parameters of a method's classifier."""

    def make(method):
        config, key = llama("float64"), jax.random.key(3)
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
    writer = build(method, OPTIONS.get(method, {}), llama("float64"), LanguageConfig())

    def both(trainable, frozen, batch, written):
        got = model.logits(trainable, frozen, model.precompute(frozen, batch))
        return got, writer.surprise(trainable, frozen, written)[0]

    batch = rows()
    got, nats = fast_jit(both)(trainable, frozen, batch, by_hand(batch, "right"))
    np.testing.assert_allclose(got, -np.asarray(nats).reshape(5, 3), rtol=1e-9)


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
        build("head", {}, llama(), HEAD)
