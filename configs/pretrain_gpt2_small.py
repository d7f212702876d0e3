"""Small GPT-2s to start from where no published weights can be had: trained on public texts.

    python -m experiments.pretrain --config=configs/pretrain_gpt2_small.py:cpu --workdir=weights/cpu
    python -m experiments.pretrain --config=configs/pretrain_gpt2_small.py:gpu --workdir=weights/gpu

The first has 1.6 million parameters and takes about an hour of two cores, saved after every cycle;
the second has 27 million and took four minutes of one H200. Both read WebNLG 2017's train file
(triples and texts), rows of a grammar that describes places to eat in E2E's slots
(memarc/data/venues.py) and texts that repeat parts of what they are given (memarc/data/copies.py),
the second SST-2's sentences as well; no text of E2E. Private runs on rows that they have read
(WebNLG, DART, which holds WebNLG texts, and SST-2) may not start from them, and are refused. The
folder WORKDIR/backbone holds weights and tokenizer; transformers loads both.
"""

from ml_collections import config_dict

from configs import common

PRESETS = ("cpu", "gpu")


def get_config(preset="cpu"):
    common.check_preset(preset, PRESETS)
    config = config_dict.ConfigDict()
    config.kind = "text"
    config.seed = 0
    # Name -> rows; None: the whole file.
    whole = config_dict.placeholder(int)
    config.sources = {"webnlg": whole, "venues": 100_000, "copies": 40_000}
    config.root = "data"
    config.tokenizer = "trained"  # Byte-level pairs of these texts; or a folder or hub name.
    config.vocab_size = 2048
    config.separator = "<|endoftext|>"
    config.end = "<|endoftext|>"
    config.max_length = 160  # Tokens; longer rows are cut.
    config.buckets = (48, 64, 96, 128, 160)
    config.chunk = 32
    config.backbone = dict(
        kind="gpt2",
        width=160,
        layers=4,
        heads=5,
        feed_forward=640,
        activation="gelu_new",
        norm_epsilon=1e-5,
    )
    config.positions = "waves"  # Or "random": what the table of positions starts as.
    config.initial_scale = 1.0  # Times N(0, 0.02^2).
    config.batch_tokens = 4096
    config.steps = 1100  # Of one cycle of the learning rate.
    config.cycles = 5
    config.warmup_steps = 200
    config.learning_rate = 3e-3  # Peak; cosine decay to zero.
    config.weight_decay = 1e-2
    config.dtype = "float32"  # Of matrix products and activations.
    config.storage_dtype = "float32"  # Of the saved weights.
    if preset == "gpu":
        _larger(config, whole)
    return config


def _larger(config, whole):
    """What a GPU can train in minutes."""
    config.sources = {"webnlg": whole, "sst2": whole, "venues": 200_000, "copies": 60_000}
    config.vocab_size = 4096
    config.buckets = (32, 64, 96, 160)
    config.backbone.update(width=512, layers=8, heads=8, feed_forward=2048)
    config.batch_tokens = 65_536
    config.steps = 3000
    config.cycles = 1
    config.learning_rate = 1e-3
    config.weight_decay = 0.1
    config.dtype = "bfloat16"
    config.storage_dtype = "bfloat16"
