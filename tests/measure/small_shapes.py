"""Sizes for tests of the measuring commands."""

from configs.shapes import encoder


def get_config():
    config = encoder(
        kind="roberta",
        vocab_size=53,
        width=16,
        layers=2,
        heads=2,
        feed_forward=24,
        dtype="float32",
    )
    config.options.side.reduction = 2
    return config
