"""The fields of every config that trains: those of the library's dataclasses, with their defaults.

What a field means stands in its dataclass (`memarc.runs.settings.SECTIONS`,
`memarc.models.methods`). Change any on the command line: ``--config.privacy.epsilon=3``,
``--config.options.lora.rank=16``.
"""

import dataclasses
import os
import pathlib
import typing
from typing import Any

from ml_collections import config_dict

from memarc.batches import CLASSIFICATION, GENERATION, REGRESSION
from memarc.models import methods
from memarc.runs.settings import SECTIONS, Settings
from memarc.training.optimizer import OptimizerConfig

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
        config.data.train_rows = 200
        config.data.dev_rows = 50
    config.privacy.delta = 1e-3
    config.privacy.expected_batch_size = 100
    config.training.epochs = 1.0


def method_options() -> dict[str, dict[str, Any]]:
    """The options of every tuning method, at the defaults of their classes."""
    return {name: methods.default_options(name) for name in methods.METHODS}


def optimizer() -> dict[str, Any]:
    """The optimizer and its schedule, at their defaults."""
    return section(OptimizerConfig)


def classification(task: str) -> config_dict.ConfigDict:
    """The base of a config that classifies; a config file sets what its family needs."""
    config = _trained(CLASSIFICATION, task, "google-bert/bert-base-uncased")
    config.data.buckets = (32, 64, 128)
    return config


def few_steps(config: config_dict.ConfigDict) -> None:
    """Makes a config learn in few private steps, with LoRA.

    It is the recipe of `configs/sst2.py` at half of its rates, as for backbones of 12 layers: the
    head moves alone at first and then more quickly than the rest, of LoRA ``b`` alone is trained,
    and rows are scaled to the bound. Other methods have their rates over LoRA's there, and a side
    network moves at once (``--config.optimizer.head_first=0``).
    """
    config.privacy.clipping = "automatic"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_fraction = 0.0
    config.optimizer.head_factor = 5.0
    config.optimizer.head_first = 0.1
    config.options.lora.train = "b"


def regression(task: str) -> config_dict.ConfigDict:
    """The base of a config that gives numbers; a config file sets what its family needs."""
    return _trained(REGRESSION, task, "google-bert/bert-base-uncased")


def generation(task: str) -> config_dict.ConfigDict:
    """The base of a config that writes text; a config file sets what its family needs."""
    config = _trained(GENERATION, task, "openai-community/gpt2")
    config.data.separator = "<|endoftext|>"
    config.data.max_prompt = 64
    config.data.buckets = (64, 96, 128)
    config.decoding.update(method="beam", beams=5, length_penalty=1.0)
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
    config.data.root = config.data.begin = config.data.end = None
    config.data.max_prompt = 38
    config.data.max_length = 80
    config.data.buckets = (48, 80)
    config.model.weights = QUICKSTART_DECODER
    config.decoding.max_tokens = 42
    config.options.side.layers = ()


def section(cls: type, **values: Any) -> dict[str, Any]:
    """The fields of a dataclass as a section of a config.

    Args:
      cls: A dataclass; its docstring says what the fields mean.
      **values: Values of fields that have no default, or another one here.

    Returns:
      Field -> value. A field that may be None is a placeholder, so that the command line can set
      it.
    """
    hints, found = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        value = values.get(field.name, field.default)
        types = [x for x in typing.get_args(hints[field.name]) if x is not type(None)]
        if type(None) in typing.get_args(hints[field.name]):
            reference = config_dict.placeholder(typing.get_origin(types[0]) or types[0])
            reference.set(value)
            value = reference
        found[field.name] = value
    return found


def _trained(kind: str, task: str, weights: str) -> config_dict.ConfigDict:
    """All fields of a config that trains, at the defaults of the library's dataclasses."""
    config = config_dict.ConfigDict()
    config.task = task
    config.method = Settings.method
    # None draws entropy from the operating system, as a run that claims privacy must. A number
    # makes the run reproducible, and not private against anyone who knows it.
    config.seed = config_dict.placeholder(int)
    config.options = method_options()
    given = {
        "data": {"root": "data"},
        "model": {"weights": weights},
        "privacy": {"epsilon": 8.0, "delta": 1e-5},
    }
    for name, cls in SECTIONS[kind].items():
        config[name] = section(cls, **given.get(name, {}))
    config.runs = {}  # Name -> what differs.
    # Name -> another whole config that the same command runs. It has fields of its own: change
    # them by --config.more.NAME.privacy.epsilon=3 and the like.
    config.more = {}
    # How often each run is made, those of ``more`` included. Repeats on private rows are several
    # releases: each is charged like a run of its own.
    config.repeats = 1
    return config
