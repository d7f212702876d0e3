"""A small GPT-2 to start from where no published weights can be had: trained on public texts.

    python -m experiments.pretrain --config=configs/pretrain_gpt2_small.py --workdir=weights/small

Reads WebNLG 2017's train file (triples and texts), rows of a grammar that describes places to eat
in E2E's slots (memarc/data/venues.py) and texts that repeat parts of what they are given
(memarc/data/copies.py); no text of E2E. An hour of two cores, with a save after every cycle.
Private runs on WebNLG or DART (which holds WebNLG texts) may not start from it, and are refused.
The folder OUT/backbone holds weights and tokenizer; transformers loads both.
"""

from ml_collections import config_dict


def get_config():
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
    config.storage_dtype = "float32"  # Of the saved weights.
    return config
