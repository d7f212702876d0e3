"""The quickstart's backbone: a small BERT pre-trained on public rows of the embedded grammar.

    python -m experiments.pretrain --config=configs/pretrain_reviews.py --workdir=OUT

Public rows hold every form of sentence but one ("although ... , ..."), 1 in 7 of the private ones.
Expect a last loss of 0.0007 nats after two minutes on two CPU cores. Its
``backbone`` folder is configs/quickstart_backbone.
"""

from ml_collections import config_dict


def get_config():
    config = config_dict.ConfigDict()
    config.kind = "reviews"
    config.seed = 0
    config.rows = 50_000  # Of the grammar's public stream.
    config.max_length = 32  # Tokens; no sentence is longer.
    config.backbone = dict(
        width=64,
        layers=3,
        heads=4,
        feed_forward=128,
        activation="gelu_new",
        norm_epsilon=1e-12,
    )
    config.positions = "random"  # Or "waves": what the table of positions starts as.
    config.initial_scale = 3.0  # Times BERT's N(0, 0.02^2), which is made for wider layers.
    config.pooling = "mean"
    config.batch_tokens = 128 * 32
    config.steps = 600  # Of one cycle of the learning rate.
    config.cycles = 1
    config.warmup_steps = 100
    config.learning_rate = 2e-3  # Peak; cosine decay to zero.
    config.weight_decay = 1e-4
    config.dtype = "float32"  # Of matrix products and activations.
    config.storage_dtype = "bfloat16"  # Of the saved weights.
    return config
