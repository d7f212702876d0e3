"""A run of an encoder that fills a mask: it starts from what was pre-trained, and predicts."""

import dataclasses

import jax
import numpy as np
import pytest

import memarc
from memarc.data import reviews, tokenize
from memarc.models import hub_config, pretrained
from memarc.models.config import Transform
from memarc.runs import assemble, exporting, run
from memarc.runs.parse import parse
from tests import tiny_weights

WORDS = ("awful", "superb")


@pytest.fixture(scope="module")
def filler(tmp_path_factory, weights):
    """The tiny BERT of the toy config, with a masked-language head."""
    config = hub_config.read(weights, "float32")
    config = dataclasses.replace(config, transform=Transform("gelu"))
    return tiny_weights.draw(tmp_path_factory.mktemp("filler"), config)


@pytest.fixture
def masked(config, filler):
    """The toy run on it."""
    config.model.weights = filler
    config.data.template = "{sentence} the food was <mask> ."
    config.head.update(pooling="mask", words=WORDS)
    return config


def test_a_run_starts_from_the_words_logits_and_predicts(masked, filler, tmp_path):
    (record,) = run.run_all(masked.to_dict(), tmp_path / "out")
    model = memarc.load(tmp_path / "out")
    assert model.evaluate()["dev_accuracy"] == record.scores["dev_accuracy"]
    odds = model.probabilities(["the food was great", "a [MASK] text " * 40])
    np.testing.assert_allclose(odds.sum(1), 1.0, rtol=1e-5)
    parts, codec = model.parts, model.parts.codec
    ids = [x for (x,) in codec.label_ids(WORDS)]
    assert parts.model.head.mask_id == codec.tokenizer.mask_token_id
    # Its start is the file's own rows of the words, and their biases.
    start, _ = parts.model.init(jax.random.key(7), parts.params)
    _, params = pretrained.load(filler, dtype="float32", storage_dtype="float32", fills_mask=True)
    np.testing.assert_array_equal(start["head"]["kernel"].T, params["embeddings"]["word"][ids])
    np.testing.assert_array_equal(start["head"]["bias"], params["final"]["word_bias"][ids])
    moved = np.asarray(model.trainable["head"]["kernel"] - start["head"]["kernel"])
    assert np.abs(moved).min() > 0.0
    with pytest.raises(ValueError, match=r"reads the 'mask' state; .*reads the 'first' one"):
        exporting.export(model, "transformers", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.template": "{sentence} was"}, "has <mask> 0 times: write it once"),
        ({"data.template": None}, "template is None, which has <mask> 0 times"),
        ({"data.template": "<mask> {sentence} <mask>"}, "has <mask> 2 times: write it once"),
        ({"data.template": "<mask> {{sentence}}"}, "names .*name columns in braces"),
        ({"data.begin": "[CLS]"}, r"a template with <mask> does not read it: leave it None"),
        ({"head.pooling": "first", "head.words": ()}, "'first', which does not read <mask>: give"),
        ({"head.words": ("awful", "really awful")}, r"have \[1, 2\] tokens; .*'mask' one alone"),
        ({"head.words": ("awful", "unheard")}, r"head.words has \['unheard'\], of which tokenizer"),
        ({"head.words": ("awful", "awful")}, "give each label words of its own"),
        ({"head.words": ()}, r"head.pooling is 'mask', and head.words is \(\)"),
        ({"head.bias": False}, "head.bias is False, and head.pooling 'mask' starts from"),
        ({"head.form": "dense_tanh"}, "head.form is 'dense_tanh', and head.words are given"),
        ({"data.max_length": 6}, "max_length is 6, of which the template takes 7"),
    ],
)
def test_what_a_mask_cannot_do_is_told_before_training(masked, changes, message):
    masked.data.buckets = ()
    masked.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        (settings,) = parse(masked.to_dict())
        assemble.assemble(settings)


def test_weights_without_the_head_and_decoders_are_told_by_name(masked, weights, tmp_path):
    masked.model.weights = weights
    (settings,) = parse(masked.to_dict())
    with pytest.raises(ValueError, match=r"lacks \['cls.predictions.bias', .* of the masked-lang"):
        assemble.assemble(settings)
    words = len(tokenize.word_level_tokenizer(reviews.vocabulary()))
    masked.model.weights = tiny_weights.draw(tmp_path, tiny_weights.decoder("gpt2", words, 28))
    (settings,) = parse(masked.to_dict())
    with pytest.raises(ValueError, match="a gpt2 decoder has no masked-language head"):
        assemble.assemble(settings)
