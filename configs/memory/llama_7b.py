"""LLaMA-7B's sizes, bfloat16 (--seq_len=512 --batch_size=8)."""

from configs.shapes import llama


def get_config():
    return llama(width=4096, layers=32, heads=32, feed_forward=11008)
