"""LLaMA-13B's sizes, bfloat16 (--seq_len=512 --batch_size=8)."""

from configs.shapes import decoder


def get_config():
    return decoder(
        kind="llama",
        vocab_size=32000,
        width=5120,
        layers=40,
        heads=40,
        feed_forward=13824,
        max_positions=4096,
        norm_epsilon=1e-5,
        activation="silu",
        has_table=True,
        attention_block=128,
        dtype="bfloat16",
    )
