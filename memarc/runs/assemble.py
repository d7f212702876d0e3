"""Puts one run together from its settings: data, backbone, model, mechanism, optimizer."""

import dataclasses
import functools

import jax

from memarc.data.generation import GenerationSplits
from memarc.data.load import Splits
from memarc.models import pretrained
from memarc.models.build import Model
from memarc.models.config import BackboneConfig
from memarc.models.language import LanguageModel
from memarc.privacy.mechanism import Mechanism
from memarc.report import records
from memarc.runs import classification, generation
from memarc.runs.job import Job
from memarc.runs.settings import ModelSource, Settings
from memarc.training.sharding import Placement, place
from memarc.typing import Params

_PADDING = 512
"""Most rows that a table of words may have beyond the tokenizer's ids, to be of a round size."""


@dataclasses.dataclass(frozen=True)
class Run:
    """All parts of a run; nothing has been trained or written."""

    settings: Settings
    job: Job
    splits: Splits | GenerationSplits
    backbone: BackboneConfig
    provenance: str
    params: Params
    model: Model | LanguageModel
    mechanism: Mechanism
    placement: Placement | None


def assemble(settings: Settings) -> Run:
    """Reads data and weights and builds the run's parts; runs that share them read them once.

    Raises:
      ValueError: If anything is missing or does not fit.
    """
    job = job_of(settings)
    placement = place(settings.mesh, jax.devices(), settings.privacy.physical_batch_size)
    splits = _data(job, settings.task, settings.data)
    provenance = records.provenance(settings.model.weights, settings.task)
    records.provenance(settings.data.tokenizer, settings.task)  # It may have learned from rows too.
    backbone, params = _backbone(settings.model, placement)
    _check_fit(settings, splits, backbone)
    return Run(
        settings=settings,
        job=job,
        splits=splits,
        backbone=backbone,
        provenance=provenance,
        params=params,
        model=job.build(settings, splits, backbone),
        mechanism=plan(settings, splits.num_examples),
        placement=placement,
    )


def job_of(settings: Settings) -> Job:
    """The kind of a run's task."""
    return generation.JOB if settings.decoding else classification.JOB


def plan(settings: Settings, num_examples: int) -> Mechanism:
    """The mechanism of a run over ``num_examples`` examples."""
    unit = job_of(settings).unit(settings.task, settings.data)
    privacy = settings.privacy
    steps = round(settings.training.epochs * num_examples / privacy.expected_batch_size)
    return Mechanism.create(privacy, num_examples=num_examples, steps=max(1, steps), unit=unit)


@functools.lru_cache(maxsize=1)
def _data(job, task, config):
    return job.load(task, config)


@functools.lru_cache(maxsize=1)
def _backbone(source: ModelSource, placement: Placement | None):
    config, params = pretrained.load(
        source.weights,
        dtype=source.dtype,
        storage_dtype=source.storage_dtype,
        sharding_of=placement.frozen_sharding if placement else None,
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
    if not 0 <= backbone.vocab_size - info.vocab_size <= _PADDING:
        raise ValueError(
            f"Tokenizer {info.name!r} has {info.vocab_size} ids; the backbone has "
            f"{backbone.vocab_size}. Give the tokenizer that the weights were trained with."
        )
