"""Writes the weights of the presets "tiny" of configs/paper: random, a few kilobytes.

    python -m tests.tiny_weights weights/tiny

makes ``roberta`` and ``gpt2`` there, which fit the tokenizers of the embedded tasks.
"""

import functools
import pathlib
import sys

import jax

from memarc.data import restaurants, reviews, tokenize
from memarc.models import backbone, pretrained
from memarc.models.families.known import make_config

SIZES = {
    "width": 16,
    "layers": 2,
    "heads": 2,
    "feed_forward": 24,
    "norm_epsilon": 1e-5,
    "dtype": "float32",
}


def write(folder: pathlib.Path) -> None:
    """Writes both models."""
    words = tokenize.word_level_tokenizer(reviews.vocabulary())
    info = tokenize.describe(words, "word_level")
    configs = {
        "roberta": make_config(
            "roberta",
            vocab_size=info.vocab_size,
            pad_id=info.pad_id,
            max_positions=32,
            type_vocab=1,
            activation="gelu",
            **SIZES,
        ),
        "gpt2": make_config(
            "gpt2",
            vocab_size=len(restaurants.tokenizer()),
            max_positions=80,
            activation="gelu_new",
            **SIZES,
        ),
    }
    for name, config in configs.items():
        drawn = jax.jit(functools.partial(backbone.init, config))(jax.random.key(0))
        (folder / name).mkdir(parents=True, exist_ok=True)
        pretrained.save(folder / name, config, jax.device_get(drawn))


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
