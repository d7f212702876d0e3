"""A run whose labels are chosen by the likelihood of their words: no head, any number of tokens."""

import numpy as np
import pytest

import memarc
from memarc.data import reviews, tokenize
from memarc.runs import assemble, exporting, run
from memarc.runs.parse import parse
from tests import tiny_weights

WORDS = ("awful", "really awful")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A folder with a tiny random decoder that fits the embedded task's tokenizer."""
    words = len(tokenize.word_level_tokenizer(reviews.vocabulary()))
    sizes = tiny_weights.decoder("gpt2", words, 28)
    return tiny_weights.draw(tmp_path_factory.mktemp("decoder"), sizes)


@pytest.fixture
def words(config, decoder):
    """The toy run on a decoder whose labels are words."""
    config.model.weights, config.method = decoder, "bitfit"
    config.data.template = "{sentence} the food was"
    config.head.update(pooling="words", words=WORDS)
    return config


def test_a_run_without_a_head_starts_from_the_words_and_predicts(words, tmp_path):
    (record,) = run.run_all(words.to_dict(), tmp_path / "out")
    model = memarc.load(tmp_path / "out")
    assert set(model.trainable) == {"tuning"}
    assert model.evaluate()["dev_accuracy"] == record.scores["dev_accuracy"]
    odds = model.probabilities(["the food was great", "bad"])
    np.testing.assert_allclose(odds.sum(1), 1.0, rtol=1e-5)
    ids = model.parts.codec.label_ids(WORDS)
    assert [len(x) for x in ids] == [1, 2] and model.parts.model.head.words == ids
    with pytest.raises(ValueError, match="no classifier of transformers compares"):
        exporting.export(model, "transformers", tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.words": ("awful", "awful")}, "give each label words of its own"),
        ({"head.words": ()}, r"head.pooling is 'words', and head.words is \(\)"),
        ({"head.pooling": "last"}, r"have \[1, 2\] tokens; .*head.pooling 'words' takes longer"),
        ({"data.max_length": 27}, r"words of a label have up to 2 tokens; the backbone has .* 28"),
        ({"optimizer.head_first": 0.5}, "optimizer.head_first is 0.5; this model gets no new head"),
        ({"method": "head"}, "'head' trains a map, and head.pooling 'words' has none"),
    ],
)
def test_what_words_cannot_do_is_told_before_training(words, changes, message):
    words.data.buckets = ()
    words.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        (settings,) = parse(words.to_dict())
        assemble.assemble(settings)
