"""LLaMA-2-70B's sizes, 8 heads of keys, bfloat16 (--target=tpu:v5e:4x4 --mesh=model:16)."""

from configs.shapes import decoder


def get_config():
    return decoder(
        kind="llama",
        vocab_size=32000,
        width=8192,
        layers=80,
        heads=64,
        kv_heads=8,
        feed_forward=28672,
        max_positions=4096,
        norm_epsilon=1e-5,
        activation="silu",
        has_table=True,
        attention_block=128,
        dtype="bfloat16",
    )
