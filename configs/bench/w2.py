"""W2: width 384, 6 layers; meant for 32 rows of 64 tokens, float32."""

from configs.shapes import encoder


def get_config():
    return encoder(
        kind="bert",
        vocab_size=30522,
        width=384,
        layers=6,
        heads=6,
        feed_forward=1536,
        dtype="float32",
    )
