"""Qwen2.5-7B's sizes, 4 heads of keys, bfloat16 (--seq_len=512 --batch_size=8)."""

from configs.shapes import decoder


def get_config():
    return decoder(
        kind="qwen2",
        vocab_size=152064,
        width=3584,
        layers=28,
        heads=28,
        kv_heads=4,
        feed_forward=18944,
        max_positions=32768,
        norm_epsilon=1e-6,
        activation="silu",
        has_table=True,
        attention_block=128,
        dtype="bfloat16",
    )
