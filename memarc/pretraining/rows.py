"""Public rows to pre-train small backbones on, without privacy: labelled reviews, or plain text.

Axes: N rows, T tokens.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

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
from memarc.data.dataset import Dataset
from memarc.data.generation_tasks import get_generation_task
from memarc.data.pair_dataset import PairDataset
from memarc.data.pair_rows import PairRows
from memarc.data.tasks import get_task
from memarc.models import build
from memarc.models.config import BackboneConfig
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig, build_language_model
from memarc.typing import Array, Batch, Params

TRAINED = "trained"
"""As config.tokenizer: byte-level pairs, learned from the public rows themselves."""

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
      backbone: Sizes.
      buckets: Batches of rows, {name: [N, ...]}, one for each length T.
      tokenizer: To be saved beside the weights; None where code builds it.
      init: ``(key, params) -> trainable``.
      loss: ``(trainable, batch) -> float32[B]``.
      params: ``trainable -> params`` of the backbone.
    """

    source: str
    not_private: tuple[str, ...]
    backbone: BackboneConfig
    buckets: list[dict[str, np.ndarray]]
    tokenizer: Any
    init: Callable[[Array, Params], Params]
    loss: Callable[[Params, Batch], Array]
    params: Callable[[Params], Params]


def labelled_reviews(config) -> PublicRows:
    """Public rows of the reviews grammar, and an encoder with a head that reads their labels."""
    codec = tokenize.word_level_tokenizer(reviews.vocabulary())
    info = tokenize.describe(codec, tokenize.WORD_LEVEL)
    rows = reviews.public_rows(config.rows, config.seed)
    encoded = tokenize.encode(codec, rows.columns, max_length=config.max_length)
    dataset = Dataset(encoded, rows.labels, info.pad_id, config.max_length)
    encoder = BackboneConfig(
        kind="bert",
        vocab_size=info.vocab_size,
        max_positions=config.max_length,
        type_vocab=1,
        pad_id=info.pad_id,
        dtype=config.dtype,
        **config.backbone.to_dict(),
    )
    model = build.build("full", {}, encoder, HeadConfig(config.pooling, len(set(rows.labels))))
    return PublicRows(
        source=_REVIEWS,
        not_private=(),
        backbone=encoder,
        buckets=[dataset.take(np.arange(len(dataset)), config.max_length)],
        tokenizer=None,
        init=lambda key, params: model.init(key, params)[0],
        loss=lambda trainable, batch: model.loss(trainable, {}, batch),
        params=lambda trainable: trainable["tuning"],
    )


def plain_text(config) -> PublicRows:
    """Public texts, each after what it says if there is that, and a decoder that predicts them.

    Raises:
      ValueError: If a source is unknown, or its files are missing or damaged.
    """
    if config.tokenizer == tokenize.WORD_LEVEL and list(config.sources) != ["restaurants"]:
        raise ValueError(
            f"Tokenizer {tokenize.WORD_LEVEL!r} knows the words of source 'restaurants' only; the "
            f"sources are {list(config.sources)}."
        )
    rows = [pair for name in config.sources for pair in _pairs(config, name)]
    if not rows:
        raise ValueError(f"The sources {list(config.sources)} hold no row; name some.")
    inputs, targets = (list(column) for column in zip(*rows, strict=True))
    codec = _tokenizer(config, [*inputs, *targets])
    separator = prompts.special_id(codec, config.separator)
    end = prompts.special_id(codec, config.end)
    layout = prompts.Layout(config.max_length - 1, None, separator, end)
    encoded = prompts.encode_pairs(codec, inputs, targets, layout, max_length=config.max_length)
    dataset = PairDataset(encoded, np.arange(len(rows)), pad_id=end, max_length=config.max_length)
    decoder = BackboneConfig(
        vocab_size=len(codec),
        max_positions=config.max_length,
        dtype=config.dtype,
        **config.backbone.to_dict(),
    )
    model = build_language_model("full", {}, decoder, LanguageConfig(config.chunk, 0.0))
    return PublicRows(
        source=f"Read were {'; '.join(_TEXTS[name] for name in config.sources)}.",
        not_private=tuple(
            dict.fromkeys(task for name in config.sources for task in NOT_PRIVATE.get(name, ()))
        ),
        backbone=decoder,
        buckets=_by_length(dataset, config.buckets),
        tokenizer=codec,
        init=lambda key, params: model.init(key, params)[0],
        loss=lambda trainable, batch: model.loss(trainable, {}, batch),
        params=lambda trainable: trainable,
    )


def _by_length(dataset, buckets) -> list[dict[str, np.ndarray]]:
    """The rows of every length."""
    rows = np.arange(len(dataset))
    places = dataset.bucket_of(rows, buckets)
    found = []
    for place, length in enumerate(buckets):
        inside = rows[places == place]
        if len(inside):
            found.append(dataset.take(inside, length))
    return found


def _pairs(config, name) -> list[tuple[str, str]]:
    """(what a text says or "", the text) of a source's rows, as many as the config says."""
    if name not in _TEXTS:
        raise ValueError(f"Unknown source {name!r}; choose from {list(_TEXTS)}.")
    count = config.sources[name]
    if name in _GRAMMARS and count is None:
        raise ValueError(f"config.sources.{name} is None; say how many rows the grammar makes.")
    if name == "restaurants":
        rows = restaurants.public_rows(count, config.seed)
    elif name == "venues":
        rows = venues.rows(count, config.seed, _words(config))
    elif name == "copies":
        rows = copies.rows(count, config.seed, _words(config))
    else:
        rows = _read(config, name)
    return list(zip(rows.inputs, rows.targets, strict=True))[:count]


def _read(config, name) -> PairRows:
    """All rows of a source that is a file."""
    if name == "webnlg":
        task = get_generation_task("webnlg")
        folder = Path(config.root) / task.folder
        advice = f"Set root, or get the files from {task.origin}."
        path = text_files.find(folder, task.train_file, task=task.name, advice=advice)
        return triples_json.read_file(path)
    (texts,) = glue_tsv.read_split(get_task("sst2"), config.root, "train.tsv").columns
    return PairRows([""] * len(texts), texts)


def _words(config) -> list[str]:
    """The words of WebNLG's texts, without marks around them, and amounts of money."""
    texts = _read(config, "webnlg").targets
    words = {word.strip(_MARKS) for text in texts for word in text.split()} - {""}
    return [*sorted(words), *(f"{mark}{amount}" for mark in "£$€" for amount in range(10, 100))]


def _tokenizer(config, texts):
    if config.tokenizer == tokenize.WORD_LEVEL:
        return restaurants.tokenizer()
    if config.tokenizer == TRAINED:
        return tokenize.train_tokenizer(texts, config.vocab_size, end_token=config.end)
    return tokenize.load_tokenizer(config.tokenizer, needs_pad=False)
