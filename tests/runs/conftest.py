"""A config of toy sizes over the embedded task, with random weights in a folder."""

import pytest

from configs import common
from memarc.data import reviews, tokenize
from memarc.models.families.known import make_config
from tests import tiny_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A folder with a tiny random BERT that fits the embedded task's tokenizer."""
    info = tokenize.describe(tokenize.word_level_tokenizer(reviews.vocabulary()), "word_level")
    config = make_config(
        "bert",
        vocab_size=info.vocab_size,
        width=16,
        layers=2,
        heads=2,
        feed_forward=24,
        max_positions=32,
        type_vocab=1,
        norm_epsilon=1e-12,
        activation="gelu",
        pad_id=info.pad_id,
        dtype="float32",
    )
    return tiny_weights.draw(tmp_path_factory.mktemp("weights"), config)


@pytest.fixture
def config(weights):
    """Three steps of 20 rows expected, on 60 rows in one bucket, of what compiles quickest."""
    config = common.classification("reviews")
    config.seed = 5
    config.data.update(
        source="embedded",
        tokenizer="word_level",
        max_length=24,
        buckets=(24,),
        train_rows=60,
        dev_rows=31,
    )
    config.data.root = None
    config.model.weights = weights
    config.method = "head"
    config.options.side.reduction = 2
    config.privacy.update(
        delta=1e-3,
        engine="vmap",
        expected_batch_size=20,
        microbatch_size=3,
        physical_batch_size=8,
    )
    config.training.update(epochs=1.0, eval_batch_size=7, log_every=1, checkpoint_every=1)
    return config
