"""Public rows to pre-train small backbones on, without privacy: labelled reviews, or plain text.

Axes: N rows, T tokens.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memarc import paths
from memarc.batches import GENERATION
from memarc.data import (
    copies,
    glue_tsv,
    prompts,
    restaurants,
    reviews,
    text_files,
    tokenize,
    triples_json,
    venues,
)
from memarc.data.codec import Codec, open_codec
from memarc.data.config import DataConfig
from memarc.data.dataset import Dataset
from memarc.data.rows import Rows
from memarc.data.tasks import get_task
from memarc.models.build import build
from memarc.models.classifier import Classifier
from memarc.models.config import BackboneConfig
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig, LanguageModel

TRAINED = "trained"
"""With this ``config.tokenizer``, byte-level pairs are learned from the public rows themselves."""

_MARKS = ".,;:!?\"'()[]"

_REVIEWS = (
    "Public rows of memarc.data.reviews with their labels, which lack one of the private rows' "
    "forms. No row of the train or dev stream was read, and the head was thrown away."
)
_TEXTS = {
    "restaurants": "public rows of memarc.data.restaurants, which lack one form and one wording "
    "of its private rows",
    "venues": "public rows of memarc.data.venues, a grammar written by hand for E2E's slots, with "
    "words of WebNLG 2017's train file as values",
    "copies": "texts that repeat parts of what they are given, words of WebNLG 2017's train file "
    "(memarc.data.copies)",
    "webnlg": "the train file of WebNLG 2017",
    "sst2": "the sentences of SST-2's train file, without labels",
}
_GRAMMARS = ("restaurants", "venues", "copies")


NOT_PRIVATE = {"webnlg": ("webnlg", "dart"), "sst2": ("sst2",)}
NOT_PRIVATE["venues"] = NOT_PRIVATE["copies"] = NOT_PRIVATE["webnlg"]  # They use its words.
"""Source -> tasks whose private rows it holds (some of DART's texts are WebNLG's)."""


@dataclasses.dataclass(frozen=True)
class PublicRows:
    """What a backbone is pre-trained on, and how.

    Attributes:
      source: What was read, as a sentence.
      not_private: Tasks that no private run may train on with this backbone.
      backbone: Sizes of the backbone.
      buckets: Batches of rows, {key: [N, ...]}, one for each length T.
      tokenizer: The tokenizer that is saved beside the weights; None where code builds it.
      model: A model that trains the whole backbone, under "tuning" of its trainable tree.
    """

    source: str
    not_private: tuple[str, ...]
    backbone: BackboneConfig
    buckets: list[dict[str, np.ndarray]]
    tokenizer: tokenize.Tokenizer | None
    model: Classifier | LanguageModel


def read(config: Mapping[str, Any]) -> PublicRows:
    """Reads or makes the public rows of a config of configs/pretrain_*.py.

    Raises:
      ValueError: If the config is none, or names unknown sources, or files that cannot be read.
    """
    readers = {"reviews": labelled_reviews, "text": plain_text}
    kind = config.get("kind")
    if kind not in readers:
        raise ValueError(
            f"config.kind is {kind!r}; give a config such as configs/pretrain_reviews.py, whose "
            f"kind is one of {list(readers)}."
        )
    return readers[kind](config)


def labelled_reviews(config: Mapping[str, Any]) -> PublicRows:
    """Public rows of the reviews grammar, and an encoder with a head that reads their labels."""
    task = get_task("reviews")
    length = config["max_length"]
    data = DataConfig(source="embedded", tokenizer=tokenize.WORD_LEVEL, max_length=length)
    codec = open_codec(task, data)
    dataset = codec.dataset(reviews.public_rows(config["rows"], config["seed"]))
    encoder = make_config(
        "bert",
        vocab_size=codec.info.vocab_size,
        max_positions=length,
        type_vocab=1,
        pad_id=codec.info.pad_id,
        dtype=config["dtype"],
        **config["backbone"],
    )
    head = HeadConfig(config["pooling"], len(task.labels))
    return PublicRows(
        source=_REVIEWS,
        not_private=(),
        backbone=encoder,
        buckets=[dataset.take(np.arange(len(dataset)), length)],
        tokenizer=None,
        model=build("full", {}, encoder, head),
    )


def plain_text(config: Mapping[str, Any]) -> PublicRows:
    """Public texts, each after what it says if there is that, and a decoder that predicts them.

    Raises:
      ValueError: If a source is unknown, or its files are missing or damaged.
    """
    sources, length = list(config["sources"]), config["max_length"]
    if config["tokenizer"] == tokenize.WORD_LEVEL and sources != ["restaurants"]:
        raise ValueError(
            f"Tokenizer {tokenize.WORD_LEVEL!r} knows the words of source 'restaurants' only; the "
            f"sources are {sources}."
        )
    pairs = [pair for name in sources for pair in _pairs(config, name)]
    if not pairs:
        raise ValueError(f"The sources {sources} hold no row; name some.")
    inputs, targets = (list(column) for column in zip(*pairs, strict=True))
    codec = _codec(config, _tokenizer(config, [*inputs, *targets]))
    dataset = codec.dataset(Rows((inputs, targets), None))
    decoder = make_config(
        vocab_size=codec.info.vocab_size,
        max_positions=length,
        dtype=config["dtype"],
        **config["backbone"],
    )
    not_private = (task for name in sources for task in NOT_PRIVATE.get(name, ()))
    return PublicRows(
        source=f"Read were {'; '.join(_TEXTS[name] for name in sources)}.",
        not_private=tuple(dict.fromkeys(not_private)),
        backbone=decoder,
        buckets=_by_length(dataset, config["buckets"]),
        tokenizer=codec.tokenizer,
        model=build("full", {}, decoder, LanguageConfig(config["chunk"], 0.0)),
    )


def _codec(config: Mapping[str, Any], tokenizer: tokenize.Tokenizer) -> Codec:
    """How texts become tokens: a prompt may take all of a row but one token."""
    separator = prompts.special_id(tokenizer, config["separator"])
    end = prompts.special_id(tokenizer, config["end"])
    return Codec(
        kind=GENERATION,
        tokenizer=tokenizer,
        info=tokenize.describe(tokenizer, config["tokenizer"], pad_id=end),
        max_length=config["max_length"],
        layout=prompts.Layout(config["max_length"] - 1, None, separator, end),
    )


def _by_length(dataset: Dataset, buckets: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    """The rows of every length."""
    rows = np.arange(len(dataset))
    places = dataset.bucket_of(rows, buckets)
    found = []
    for place, length in enumerate(buckets):
        inside = rows[places == place]
        if len(inside):
            found.append(dataset.take(inside, length))
    return found


def _pairs(config: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """(what a text says or "", the text) of a source's rows, as many as the config says."""
    if name not in _TEXTS:
        raise ValueError(f"Unknown source {name!r}; choose from {list(_TEXTS)}.")
    count = config["sources"][name]
    if name in _GRAMMARS and count is None:
        raise ValueError(f"config.sources.{name} is None; say how many rows the grammar makes.")
    if name == "restaurants":
        rows = restaurants.public_rows(count, config["seed"])
    elif name == "venues":
        rows = venues.rows(count, config["seed"], _words(config))
    elif name == "copies":
        rows = copies.rows(count, config["seed"], _words(config))
    else:
        rows = _read(config, name)
    return list(zip(*rows.columns, strict=True))[:count]


def _read(config: Mapping[str, Any], name: str) -> Rows:
    """All rows of a source that is a file."""
    if name == "webnlg":
        task = get_task("webnlg")
        folder = paths.place(config["root"]) / task.folder
        advice = f"Set root, or get the files from {task.origin}."
        path = text_files.find(folder, task.train_file, task=task.name, advice=advice)
        return triples_json.read_file(path)
    task = get_task("sst2")
    rows = glue_tsv.read_split(task, config["root"], "train.tsv", drop_broken=False)
    (texts,) = rows.columns
    return Rows(([""] * len(texts), texts), None)


def _words(config: Mapping[str, Any]) -> list[str]:
    """The words of WebNLG's texts, without marks around them, and amounts of money."""
    _, texts = _read(config, "webnlg").columns
    words = {word.strip(_MARKS) for text in texts for word in text.split()} - {""}
    return [*sorted(words), *(f"{mark}{amount}" for mark in "£$€" for amount in range(10, 100))]


def _tokenizer(config: Mapping[str, Any], texts: Sequence[str]) -> tokenize.Tokenizer:
    """The grammar's own tokenizer, one that is learned here, or a published one."""
    if config["tokenizer"] == tokenize.WORD_LEVEL:
        return restaurants.tokenizer()
    if config["tokenizer"] == TRAINED:
        return tokenize.train_tokenizer(texts, config["vocab_size"], end_token=config["end"])
    return tokenize.load_tokenizer(config["tokenizer"], needs_pad=False)
