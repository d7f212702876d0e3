"""GPT-2-large's sizes, bfloat16; E2E rows have about 100 tokens (--seq_len=100)."""

from configs.shapes import decoder


def get_config():
    return decoder(
        kind="gpt2",
        vocab_size=50257,
        width=1280,
        layers=36,
        heads=20,
        feed_forward=5120,
        max_positions=1024,
        norm_epsilon=1e-5,
        activation="gelu_new",
        dtype="bfloat16",
    )
