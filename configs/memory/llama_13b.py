"""LLaMA-13B's sizes, bfloat16 (--seq_len=512 --batch_size=8)."""

from configs.shapes import llama


def get_config():
    return llama(width=5120, layers=40, heads=40, feed_forward=13824)
