"""LLaMA-2-70B's sizes, 8 heads of keys, bfloat16 (--target=tpu:v5e:4x4 --mesh=model:16)."""

from configs.shapes import llama


def get_config():
    return llama(width=8192, layers=80, heads=64, kv_heads=8, feed_forward=28672)
