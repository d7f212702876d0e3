"""The fields of every classification config, with the values that most of them share.

Change any of them on the command line: ``--config.privacy.epsilon=3``,
``--config.options.lora.rank=16``.
"""

import os
import pathlib

from ml_collections import config_dict

PRESETS = ("full", "smoke")

# Relative, so that records do not name the folders of one machine.
QUICKSTART_BACKBONE = os.path.relpath(pathlib.Path(__file__).parent / "quickstart_backbone")
"""A small BERT pre-trained on public rows of the grammar: made by
``python -m experiments.pretrain --config=configs/pretrain_reviews.py``."""


def check_preset(preset: str) -> None:
    """Raises ValueError for an unknown preset."""
    if preset not in PRESETS:
        raise ValueError(f"Unknown preset {preset!r}; choose one of {PRESETS}.")


def embedded(config: config_dict.ConfigDict) -> None:
    """Makes a config read the embedded task with its own small backbone; downloads nothing."""
    config.task = "reviews"
    config.data.source = "embedded"
    config.data.split = "official"
    config.data.tokenizer = "word_level"
    config.data.root = None
    config.data.max_length = 32
    config.data.buckets = (16, 32)
    config.model.weights = QUICKSTART_BACKBONE
    config.options.side.layers = ()  # All: a config's choice may name layers it does not have.


def smoke(config: config_dict.ConfigDict) -> None:
    """Makes a config a toy of the same code path: two steps on a CPU, in seconds."""
    embedded(config)
    config.data.reviews_train_rows = 200
    config.data.reviews_dev_rows = 50
    config.privacy.delta = 1e-3
    config.privacy.expected_batch_size = 100
    config.training.epochs = 1.0


def method_options() -> dict:
    """The options of every tuning method."""
    return dict(
        full={},
        head={},
        bitfit={},
        lora=dict(rank=8, alpha=16.0, targets=("query", "value"), train="both"),
        adapter=dict(bottleneck=16),
        side=dict(reduction=8, layers=(), start="pruned", merge="add", downsample="trained"),
        reversible=dict(
            coupling="centred",
            scale=0.0625,
            bottleneck=16,
            layers=0,
            anchor_every=1,
            end="newest",
            arithmetic="exact",
        ),
    )


def optimizer() -> dict:
    """The optimizer and its schedule."""
    return dict(
        name="adamw",
        learning_rate=1e-3,
        schedule="linear",
        warmup_fraction=0.1,
        weight_decay=0.0,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        head_factor=1.0,  # The head's learning rate over that of the other parameters.
        head_first=0.0,  # Share of the steps in which the head moves alone.
    )


def classification(task: str) -> config_dict.ConfigDict:
    """The base of a config; a config file sets what its family needs."""
    config = config_dict.ConfigDict()
    config.task = task
    config.method = "lora"
    # None draws entropy from the operating system, as a run that claims privacy must. A number
    # makes the run reproducible, and not private against anyone who knows it.
    config.seed = config_dict.placeholder(int)
    config.data = dict(
        source="glue",  # Files data/<task>/*.tsv or *.tsv.gz; also "tfds", "tfds_download".
        split="official",  # Or "paper": 50,000 / 1,000 / rest of the train file.
        tokenizer="google-bert/bert-base-uncased",  # A folder or a hub name.
        max_length=128,  # Tokens; longer rows are cut.
        buckets=(32, 64, 128),  # Rows are padded to the next of these lengths.
        root=config_dict.placeholder(str),
        train_file=config_dict.placeholder(str),
        reviews_train_rows=6000,  # Of the embedded task.
        reviews_dev_rows=1000,
        reviews_seed=0,
    )
    config.data.root = "data"
    config.model = dict(
        weights="google-bert/bert-base-uncased",  # A folder or a hub name.
        dtype="float32",  # Of matrix products and activations; or "bfloat16".
        storage_dtype="float32",  # Of frozen weights; or "bfloat16".
        remat="none",  # Or "layer": keep each layer's input only; memory and speed.
        attention_block=0,  # Queries at a time, 0 for all; memory and speed.
    )
    config.head = dict(pooling="first")  # Or "mean".
    config.options = method_options()
    config.privacy = dict(
        epsilon=8.0,
        delta=1e-5,
        clip_norm=1.0,  # L2, per example.
        clipping="abadi",  # Or "automatic".
        clipping_scope="flat",  # Or "per_layer".
        expected_batch_size=1024,
        max_batch_size=config_dict.placeholder(int),  # None: every draw is used whole.
        engine="auto",  # Or "loop", "vmap", "ghost", "book_keeping": memory and speed only.
        microbatch_size=32,  # Memory and speed only.
        physical_batch_size=32,  # Memory and speed only.
        noise_multiplier=config_dict.placeholder(float),  # None: calibrated to epsilon.
    )
    config.ledger = dict(
        folder=config_dict.placeholder(str),  # None: beside the run. Runs on the same rows share.
        epsilon=config_dict.placeholder(float),  # Of all runs in the folder; None: as begun, or
        delta=config_dict.placeholder(float),  # the run's own where it has a ledger for itself.
    )
    config.optimizer = optimizer()
    config.training = dict(
        epochs=1.0,
        eval_batch_size=128,
        log_every=10,
        checkpoint_every=20,
        keep_checkpoints=2,
        tensorboard=False,
    )
    config.runs = {}
    return config
