"""RoBERTa-large's sizes, bfloat16."""

from configs.shapes import encoder


def get_config():
    return encoder(
        kind="roberta",
        vocab_size=50265,
        width=1024,
        layers=24,
        heads=16,
        feed_forward=4096,
        dtype="bfloat16",
    )
