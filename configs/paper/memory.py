"""The table of memory: sizes of the paper's backbones; no weights and no data are read.

    python -m experiments.memory --config=configs/paper/memory.py:roberta-large --target=tpu:v5e \
        --methods=full,lora,adapter,bitfit,head,side,reversible --batch_size=32 --seq_len=128

Presets: roberta-large, roberta-base, gpt2-large, gpt2-medium, gpt2-small, and tiny.
``experiments.plan`` tells the same of the runs of the other two tables, in their own shapes.
"""

from configs import common
from configs.shapes import decoder, encoder

# Preset -> (layers, width, heads).
_ENCODERS = {"roberta-large": (24, 1024, 16), "roberta-base": (12, 768, 12), "tiny": (2, 16, 2)}
_DECODERS = {
    "gpt2-large": (36, 1280, 20),
    "gpt2-medium": (24, 1024, 16),
    "gpt2-small": (12, 768, 12),
}
PRESETS = (*_ENCODERS, *_DECODERS)


def get_config(preset="roberta-large"):
    common.check_preset(preset, PRESETS)
    layers, width, heads = {**_ENCODERS, **_DECODERS}[preset]
    sizes = dict(width=width, layers=layers, heads=heads, feed_forward=4 * width, dtype="float32")
    if preset in _DECODERS:
        return decoder(
            kind="gpt2",
            vocab_size=50257,
            max_positions=1024,
            norm_epsilon=1e-5,
            activation="gelu_new",
            **sizes,
        )
    return encoder(kind="roberta", vocab_size=90 if preset == "tiny" else 50265, **sizes)
