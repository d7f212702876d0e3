"""The quickstart's decoder: a small GPT-2 pre-trained on public rows of the restaurants grammar.

    python -m experiments.pretrain --config=configs/pretrain_restaurants.py --workdir=OUT

Public rows lack one form of text and one wording of the private ones. Its ``backbone`` folder is
configs/quickstart_decoder, without the tokenizer, which code builds.
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.kind = "text"
    config.seed = 0
    config.sources = {"restaurants": 20_000}  # Name -> rows.
    config.root = "data"  # Of other sources.
    config.tokenizer = "word_level"
    config.vocab_size = 0  # Of a tokenizer that is trained.
    config.separator = "[SEP]"
    config.end = "[END]"
    config.max_length = 80  # Tokens; the longest row has 78.
    config.buckets = (48, 80)
    config.chunk = 16
    config.backbone = dict(
        kind="gpt2",
        width=96,
        layers=3,
        heads=4,
        feed_forward=256,
        activation="gelu_new",
        norm_epsilon=1e-5,
    )
    config.positions = "waves"  # Or "random": what the table of positions starts as.
    config.initial_scale = 2.0  # Times N(0, 0.02^2), which is made for wider layers.
    config.batch_tokens = 4096
    config.steps = 900  # Of one cycle of the learning rate.
    config.cycles = 1
    config.warmup_steps = 100
    config.learning_rate = 3e-3  # Peak; cosine decay to zero.
    config.weight_decay = 1e-2
    config.dtype = "float32"  # Of matrix products and activations.
    config.storage_dtype = "bfloat16"  # Of the saved weights.
    return config
