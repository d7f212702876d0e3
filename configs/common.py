"""The fields of every config that trains, with the values that most of them share.

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

QUICKSTART_DECODER = os.path.relpath(pathlib.Path(__file__).parent / "quickstart_decoder")
"""A small GPT-2 pre-trained on public rows of the restaurants grammar: made by
``python -m experiments.pretrain --config=configs/pretrain_restaurants.py``."""


def check_preset(preset: str, choices: tuple[str, ...] = PRESETS) -> None:
    """Raises ValueError for an unknown preset."""
    if preset not in choices:
        raise ValueError(f"Unknown preset {preset!r}; choose one of {choices}.")


def embedded(config: config_dict.ConfigDict) -> None:
    """Makes a config read the embedded task with its own small backbone; downloads nothing."""
    config.task = "reviews"
    config.data.source = "embedded"
    config.data.split = "official"
    config.data.tokenizer = "word_level"
    config.data.root = None
    config.data.max_length = 24  # The longest sentence.
    config.data.buckets = (24,)
    config.model.weights = QUICKSTART_BACKBONE
    config.options.side.layers = ()  # All: a config's choice may name layers it does not have.


def smoke(config: config_dict.ConfigDict) -> None:
    """Makes a config a toy of the same code path: two steps on a CPU, in seconds."""
    if "decoding" in config:
        restaurants(config)
        config.data.train_rows = 200
        config.data.dev_rows = 30
    else:
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
    """The base of a config that classifies; a config file sets what its family needs."""
    config = _trained(task, "google-bert/bert-base-uncased")
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
    config.head = dict(pooling="first")  # Or "mean".
    return config


def generation(task: str) -> config_dict.ConfigDict:
    """The base of a config that writes text; a config file sets what its family needs."""
    config = _trained(task, "openai-community/gpt2")
    config.data = dict(
        source="files",  # Under data/<the task's folder>; also "embedded".
        tokenizer="openai-community/gpt2",  # A folder or a hub name.
        separator="<|endoftext|>",  # Special token between what is given and what is written.
        begin=config_dict.placeholder(str),  # Special token, LLaMA's "<s>"; None: none.
        end=config_dict.placeholder(str),  # Special token; None: the tokenizer's own.
        max_prompt=64,  # Tokens, special ones included; longer prompts are cut.
        max_length=128,  # Tokens of a row; longer ones are cut.
        buckets=(64, 96, 128),  # Rows are padded to the next of these lengths.
        unit="row",  # Of privacy: one reference; or "input": one input with its references.
        references_per_group=config_dict.placeholder(int),  # With unit "input": the first so many.
        root=config_dict.placeholder(str),
        train_file=config_dict.placeholder(str),
        train_rows=6000,  # Of the embedded task.
        dev_rows=600,
        rows_seed=0,
        eval_rows=config_dict.placeholder(int),  # Inputs of each evaluation set; None: all.
    )
    config.data.root = "data"
    config.head = dict(
        chunk=32,  # Tokens of a row whose logits are in memory at a time; memory and speed only.
        smoothing=0.0,  # Of labels.
    )
    config.decoding = dict(
        method="beam",  # Or "greedy", "nucleus".
        max_tokens=64,  # New tokens, the end included.
        beams=5,
        length_penalty=1.0,  # Beams are compared by log probability / length^this.
        no_repeat_ngram=0,  # 0: any n-gram may occur twice.
        top_p=1.0,
        temperature=1.0,
        seed=0,  # Of samples.
    )
    return config


def greedy(config: config_dict.ConfigDict) -> None:
    """Makes a config decode greedily."""
    config.decoding.update(method="greedy", beams=1, length_penalty=0.0)


def restaurants(config: config_dict.ConfigDict) -> None:
    """Makes a config read the embedded restaurants with their own small decoder."""
    config.task = "restaurants"
    config.data.source = "embedded"
    config.data.tokenizer = "word_level"
    config.data.separator = "[SEP]"
    config.data.root = config.data.end = None
    config.data.max_prompt = 38
    config.data.max_length = 80
    config.data.buckets = (48, 80)
    config.model.weights = QUICKSTART_DECODER
    config.decoding.max_tokens = 42
    config.options.side.layers = ()


def _trained(task, weights) -> config_dict.ConfigDict:
    """What all configs that train share."""
    config = config_dict.ConfigDict()
    config.task = task
    config.method = "lora"
    # None draws entropy from the operating system, as a run that claims privacy must. A number
    # makes the run reproducible, and not private against anyone who knows it.
    config.seed = config_dict.placeholder(int)
    config.model = dict(
        weights=weights,  # A folder or a hub name.
        dtype="float32",  # Of matrix products and activations; or "bfloat16".
        storage_dtype="float32",  # Of frozen weights; or "bfloat16".
        remat="none",  # Or "layer": keep each layer's input only; memory and speed.
        attention_block=0,  # Queries at a time, 0 for all; memory and speed.
    )
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
    config.mesh = dict(
        data=config_dict.placeholder(int),  # Copies of frozen weights; None: all devices / model.
        model=1,  # Devices that hold one copy of the frozen layers together.
        state="whole",  # Of trainable parameters and optimizer; or "cut" over all devices.
    )
    config.runs = {}  # Name -> what differs.
    # Name -> another whole config that the same command runs. It has fields of its own: change
    # them by --config.more.NAME.privacy.epsilon=3 and the like.
    config.more = {}
    return config
