"""Puts one run together from its settings: data, backbone, model, mechanism, optimizer."""

import dataclasses
import functools

from experiments.settings import ModelSource, Settings
from memarc.data import load
from memarc.models import pretrained
from memarc.models.build import Model, build
from memarc.models.config import BackboneConfig
from memarc.models.head import HeadConfig
from memarc.privacy.mechanism import Mechanism
from memarc.typing import Params


@dataclasses.dataclass(frozen=True)
class Run:
    """All parts of a run; nothing has been trained or written."""

    settings: Settings
    splits: load.Splits
    backbone: BackboneConfig
    params: Params
    model: Model
    mechanism: Mechanism


def assemble(settings: Settings) -> Run:
    """Reads data and weights and builds the run's parts; runs that share them read them once.

    Raises:
      ValueError: If anything is missing or does not fit.
    """
    splits = _data(settings.task, settings.data)
    backbone, params = _backbone(settings.model)
    _check_fit(settings, splits, backbone)
    head = HeadConfig(settings.head.pooling, splits.num_labels)
    return Run(
        settings=settings,
        splits=splits,
        backbone=backbone,
        params=params,
        model=build(settings.method, settings.options, backbone, head),
        mechanism=plan(settings, splits.num_examples),
    )


def plan(settings: Settings, num_examples: int) -> Mechanism:
    """The mechanism of a run over ``num_examples`` rows."""
    privacy = settings.privacy
    steps = round(settings.training.epochs * num_examples / privacy.expected_batch_size)
    return Mechanism.create(privacy, num_examples=num_examples, steps=max(1, steps))


_data = functools.lru_cache(maxsize=1)(load.load)


@functools.lru_cache(maxsize=1)
def _backbone(source: ModelSource):
    config, params = pretrained.load(
        source.weights, dtype=source.dtype, storage_dtype=source.storage_dtype
    )
    return dataclasses.replace(
        config, remat=source.remat, attention_block=source.attention_block
    ), params


def _check_fit(settings, splits, backbone) -> None:
    """Raises ValueError where data and backbone do not belong together."""
    info, longest = splits.tokenizer, settings.data.max_length
    if longest > backbone.longest_sequence:
        raise ValueError(
            f"data.max_length is {longest}; the backbone has positions for "
            f"{backbone.longest_sequence} tokens."
        )
    if info.vocab_size > backbone.vocab_size or info.pad_id != backbone.pad_id:
        raise ValueError(
            f"Tokenizer {info.name!r} has {info.vocab_size} ids and pads with {info.pad_id}; the "
            f"backbone has {backbone.vocab_size} and {backbone.pad_id}. Give the tokenizer that "
            "the weights were trained with."
        )
    types = 1 + max(
        int(dataset.encoded.token_type_ids.max(initial=0))
        for dataset in (splits.train, *splits.evals.values())
    )
    if types > backbone.type_vocab:
        raise ValueError(
            f"Tokenizer {info.name!r} writes {types} token types; the backbone has "
            f"{backbone.type_vocab}."
        )
