"""Puts one run together from its settings: data, backbone, model, mechanism."""

import dataclasses
import functools
from collections.abc import Mapping

import jax

from memarc import gguf_header
from memarc.data import gguf_tokenizer, load
from memarc.data.codec import Codec, open_codec
from memarc.data.config import DataConfig
from memarc.data.load import Splits
from memarc.data.rows import Rows
from memarc.models import backbone, block_files, hub_config, pretrained
from memarc.models.config import BackboneConfig
from memarc.ops import quantised
from memarc.privacy.mechanism import Mechanism
from memarc.report import records
from memarc.runs.job import JOBS
from memarc.runs.parts import Parts, Run
from memarc.runs.sections import ModelSource
from memarc.runs.settings import Settings
from memarc.training.sharding import Placement, place
from memarc.typing import Params

_PADDING = 512
"""Most rows that a table of words may have beyond the tokenizer's ids, to be of a round size."""


def assemble(settings: Settings) -> Run:
    """Reads data and weights and builds a run's parts; runs that share them read them once.

    Raises:
      ValueError: If anything is missing or does not fit.
    """
    placement = _place(settings)
    return _with_rows(settings, rows_of(settings), placement)


def assemble_rows(settings: Settings, train: Rows, evals: Mapping[str, Rows]) -> Run:
    """Builds a run's parts around rows that are in memory (data source "memory").

    Args:
      settings: The settings of the run.
      train: The private train rows.
      evals: Name of an evaluation set -> its rows.

    Raises:
      ValueError: If anything is missing or does not fit.
    """
    placement = _place(settings)
    splits = load.from_rows(settings.data_to_load, settings.record_of_task, train, evals)
    return _with_rows(settings, splits, placement)


def parts_of(settings: Settings, codec: Codec | None, placement: Placement | None) -> Parts:
    """Reads the backbone and builds the model; no rows are needed.

    Args:
      settings: The settings of the run.
      codec: The tokenizer that is open already; None opens it.
      placement: How arrays lie on a mesh; None for one device.

    Raises:
      ValueError: If weights or tokenizer are missing, have read the task's private rows, or do not
        fit each other.
    """
    backbone_of = _backbone(settings.model, placement, settings.fills_mask)
    return _around(settings, codec, placement, *backbone_of)


def sketch(settings: Settings, codec: Codec | None, placement: Placement | None) -> Parts:
    """Gives what `parts_of` gives, but ``params`` are shapes, as the weights' config states them.

    Blocks of a GGUF file are read, as the config does not say what they are.

    Raises:
      ValueError: For what `parts_of` refuses, but weights of other shapes, which are not read.
    """
    source = settings.model
    if source.storage_dtype == block_files.GGUF:
        return parts_of(settings, codec, placement)
    place = pretrained.find(source.weights)
    config = hub_config.read(place, source.dtype, fills_mask=settings.fills_mask)
    params = jax.eval_shape(functools.partial(random_weights, config, source), jax.random.key(0))
    return _around(settings, codec, placement, _computed(config, source), params)


def random_weights(config: BackboneConfig, source: ModelSource, key: jax.Array) -> Params:
    """Random parameters of a backbone, held as a run's are.

    Raises:
      ValueError: For storage that is not known here, or blocks that do not fit.
    """
    params, stored = backbone.init(config, key), source.storage_dtype
    if stored in quantised.BITS:
        layers = quantised.in_blocks(params["layers"], stored, source.storage_block)
        params, stored = {**params, "layers": layers}, source.dtype
    kept_as = pretrained.STORAGE_DTYPES.get(stored)
    if kept_as is None:
        choices = (*pretrained.STORAGE_DTYPES, *block_files.STORAGE)
        raise ValueError(f"storage_dtype is {stored!r}; choose one of {choices}.")
    return jax.tree.map(
        lambda x: x if quantised.is_quantised(x) else x.astype(kept_as),
        params,
        is_leaf=quantised.is_quantised,
    )


def _around(
    settings: Settings,
    codec: Codec | None,
    placement: Placement | None,
    config: BackboneConfig,
    params: Params,
) -> Parts:
    """The parts around a backbone."""
    provenance = records.provenance(settings.model.weights, settings.task)
    records.provenance(settings.tokenizer, settings.task)  # It may have learned from rows too.
    codec = codec or open_codec(settings.record_of_task, settings.data_to_load)
    _check_fit(settings, codec, config)
    model = JOBS[settings.kind].build(settings, codec, config)
    return Parts(settings, codec, config, provenance, params, model, placement)


def plan(settings: Settings, num_examples: int) -> Mechanism:
    """The mechanism of a run over ``num_examples`` examples."""
    unit = load.privacy_unit(settings.record_of_task, settings.data)
    steps = planned_steps(settings, num_examples)
    return Mechanism.create(settings.privacy, num_examples=num_examples, steps=steps, unit=unit)


def planned_steps(settings: Settings, num_examples: int) -> int:
    """How many noised updates a run over ``num_examples`` examples has."""
    batch = settings.privacy.expected_batch_size
    return max(1, round(settings.training.epochs * num_examples / batch))


def _place(settings: Settings) -> Placement | None:
    """How the run's arrays lie on all devices."""
    return place(settings.mesh, jax.devices(), settings.privacy.physical_batch_size)


def _with_rows(settings: Settings, splits: Splits, placement: Placement | None) -> Run:
    """The run of some rows."""
    parts = parts_of(settings, splits.codec, placement)
    JOBS[settings.kind].check_rows(splits, parts.backbone)
    mechanism = plan(settings, splits.num_examples)
    fields = {field.name: getattr(parts, field.name) for field in dataclasses.fields(parts)}
    return Run(**fields, splits=splits, mechanism=mechanism)


def rows_of(settings: Settings) -> Splits:
    """Reads and tokenizes a run's rows; runs that share them read them once.

    Raises:
      ValueError: If they cannot be read.
    """
    return _load(settings.task, settings.data_to_load)


@functools.lru_cache(maxsize=1)
def _load(task: str, config: DataConfig) -> Splits:
    """Reads the rows of a task."""
    return load.load(task, config)


@functools.lru_cache(maxsize=1)
def _backbone(
    source: ModelSource, placement: Placement | None, fills_mask: bool
) -> tuple[BackboneConfig, Params]:
    """Reads the weights of a backbone."""
    config, params = pretrained.load(
        source.weights,
        dtype=source.dtype,
        storage_dtype=source.storage_dtype,
        storage_block=source.storage_block,
        fills_mask=fills_mask,
        sharding_of=placement.frozen_sharding if placement else None,
    )
    return _computed(config, source), params


def _computed(config: BackboneConfig, source: ModelSource) -> BackboneConfig:
    """The sizes of a backbone with how it is computed."""
    return dataclasses.replace(config, remat=source.remat, attention_block=source.attention_block)


def _check_fit(settings: Settings, codec: Codec, config: BackboneConfig) -> None:
    """Raises ValueError where tokenizer and backbone do not belong together."""
    info, longest = codec.info, settings.data.max_length
    if longest > config.longest_sequence:
        raise ValueError(
            f"data.max_length is {longest}; the backbone has positions for "
            f"{config.longest_sequence} tokens."
        )
    _check_sizes(settings, info.vocab_size, config.vocab_size)
    _check_vocabulary(settings.model.weights, settings.tokenizer, codec)


def _check_sizes(settings: Settings, ids: int, rows: int) -> None:
    """Raises ValueError unless the table of words has a row for every id, and few more."""
    if 0 <= rows - ids <= _PADDING:
        return
    weights, tokenizer = settings.model.weights, settings.tokenizer
    told = f"The table of words of {weights} has {rows} rows, tokenizer {tokenizer!r} {ids} ids"
    if tokenizer != weights:
        raise ValueError(f"{told}. Give the tokenizer that the weights were trained with.")
    if rows < ids:
        raise ValueError(
            f"{told}, and it is the weights' own: tokens were added to it after the weights were "
            "saved. Take them out, or save the model with a table that has rows for them."
        )
    raise ValueError(
        f"{told}, and it is the weights' own: {rows - ids} rows are of no token, where {_PADDING} "
        "fill a table up to a round size at most. Its files are incomplete (added_tokens.json, "
        "tokenizer.json), or the table was made longer: cut it to the ids."
    )


def _check_vocabulary(weights: str, tokenizer: str, codec: Codec) -> None:
    """Raises ValueError where weights bring a vocabulary, and the tokenizer has another."""
    if not gguf_header.is_file(weights) or tokenizer == weights:
        return
    found = gguf_tokenizer.difference(gguf_header.read(weights), codec.tokenizer.get_vocab())
    if found:
        raise ValueError(
            f"Tokenizer {tokenizer!r} is not that of {weights}: in the latter, {found}. Leave "
            "data.tokenizer out to use the latter."
        )
