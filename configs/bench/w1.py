"""W1: width 512, 6 layers; meant for 16 rows of 128 tokens, float32."""

from configs.shapes import encoder


def get_config():
    return encoder(
        kind="bert",
        vocab_size=30522,
        width=512,
        layers=6,
        heads=8,
        feed_forward=2048,
        dtype="float32",
    )
