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
from memarc.models.config import BackboneConfig
from memarc.models.families.known import make_config

SIZES = {
    "width": 16,
    "layers": 2,
    "heads": 2,
    "feed_forward": 24,
    "norm_epsilon": 1e-5,
    "dtype": "float32",
}


def decoder(kind: str, vocab_size: int, max_positions: int) -> BackboneConfig:
    """Sizes of a small decoder."""
    activation = "gelu_new" if kind == "gpt2" else "silu"
    return make_config(
        kind, vocab_size=vocab_size, max_positions=max_positions, activation=activation, **SIZES
    )


def draw(folder: pathlib.Path, config: BackboneConfig) -> str:
    """Writes random weights of a config; gives the folder's name."""
    drawn = jax.jit(functools.partial(backbone.init, config))(jax.random.key(0))
    folder.mkdir(parents=True, exist_ok=True)
    pretrained.save(folder, config, jax.device_get(drawn))
    return str(folder)


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
        "gpt2": decoder("gpt2", len(restaurants.tokenizer()), 80),
    }
    for name, config in configs.items():
        draw(folder / name, config)


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
