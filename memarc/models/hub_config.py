"""Reads and writes the config.json of a Hugging Face folder; refuses what is not supported."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memarc import gguf_header
from memarc.models import gguf_config
from memarc.models.config import BackboneConfig, Transform
from memarc.models.families import known
from memarc.models.family import Family

FILE_NAME = "config.json"

# What every config.json may say without changing the function of the model in use. A key that is
# neither here nor known to the family is refused: it may change the function.
_HARMLESS = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels
    architectures attention_dropout attention_probs_dropout_prob attn_implementation attn_pdrop
    auto_map bos_token_id chunk_size_feed_forward classifier_dropout cls_token_id
    decoder_start_token_id directionality dropout dtype embd_pdrop eos_token_id finetuning_task
    gradient_checkpointing hidden_dropout hidden_dropout_prob id2label initializer_range label2id
    mask_token_id max_length model_type num_labels output_attentions output_hidden_states
    output_past pad_token_id pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers
    pooler_size_per_head pooler_type prefix problem_type resid_pdrop return_dict sep_token_id
    task_specific_params tokenizer_class torch_dtype torchscript transformers.js_config
    transformers_version unk_token_id use_bfloat16 use_cache
    """.split()
)
_REQUIRED = {"is_encoder_decoder": False, "pruned_heads": {}, "tie_encoder_decoder": False}
# Of the file that was read; what is saved has dtypes and names of its own.
_NOT_KEPT = ("_name_or_path", "auto_map", "dtype", "torch_dtype", "transformers_version")


def read(
    weights: str | os.PathLike[str], dtype: str, *, fills_mask: bool = False
) -> BackboneConfig:
    """Reads the config of a backbone.

    Args:
      weights: A folder that holds a ``config.json``, or a GGUF file.
      dtype: Compute dtype, "float32" or "bfloat16"; it is the run's choice, not the folder's.
      fills_mask: Whether the masked-language head is a part of it.

    Returns:
      The config.

    Raises:
      ValueError: If the file is missing or no JSON, the model is of another type, a size is
        missing, or the model has a feature that the backbone has not, or that is not known.
    """
    if gguf_header.is_file(weights):
        found, place = gguf_config.content(gguf_header.read(weights)), str(weights)
    else:
        path = Path(weights) / FILE_NAME
        found, place = read_json(path), str(path)
    config = of_content(found, dtype, place)
    if not fills_mask:
        return config
    return dataclasses.replace(config, transform=_transform(config, found, place))


def _transform(config: BackboneConfig, content: Mapping[str, Any], place: str) -> Transform:
    """The masked-language head of a backbone; ValueError where there is none that we compute."""
    head = known.get(config.kind).mask_head
    if head is None:
        what = "decoder" if config.parts.is_decoder else "encoder"
        have = [name for name, family in known.FAMILIES.items() if family.mask_head]
        raise ValueError(
            f"{place}: a {config.kind} {what} has no masked-language head, which head.pooling "
            f"'mask' reads; these families have one: {', '.join(have)}."
        )
    # An output table of its own would be another function.
    required = {**head.required, "tie_word_embeddings": True}
    wrong = {k: content[k] for k, x in required.items() if content.get(k) not in (None, x)}
    if wrong:
        wanted = {key: required[key] for key in wrong}
        raise ValueError(
            f"{place} has {wrong}, of the masked-language head, which head.pooling 'mask' reads; "
            f"it must be {wanted}. Choose another head.pooling."
        )
    return Transform(head.activation or config.activation, head.dense_bias)


def of_content(content: Mapping[str, Any], dtype: str, place: str) -> BackboneConfig:
    """The config that the content of a config.json states.

    Args:
      content: The content, or what another format says in its terms.
      dtype: The compute dtype.
      place: Names the content in messages.

    Raises:
      ValueError: As `read` does.
    """
    try:
        family = known.get(content.get("model_type"))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    _check_keys(content, family, place)
    more: dict[str, Any] = {"dtype": dtype, "source": json.dumps(dict(content))}
    if family.parts.is_decoder:
        more["has_table"] = not {**family.defaults, **content}["tie_word_embeddings"]
    try:
        return family.config(content, **more)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _check_keys(content: Mapping[str, Any], family: Family, place: str) -> None:
    """Raises ValueError for values and keys with which the model may be another function."""
    required = {**_REQUIRED, **family.required}
    wrong = {k: content[k] for k, x in required.items() if content.get(k) not in (None, x)}
    if wrong:
        wanted = {key: required[key] for key in wrong}
        raise ValueError(f"{place} has {wrong}, which is not supported; it must be {wanted}.")
    keys = {*family.sizes.values(), *family.defaults, *required, *family.harmless, *_HARMLESS}
    if not family.parts.is_decoder:
        keys.add("tie_word_embeddings")  # An encoder has no output table.
    unknown = {k: x for k, x in content.items() if k not in keys and x is not None}
    if unknown:
        raise ValueError(
            f"{place} has {unknown}, which a {family.name} backbone is not known to have. If the "
            "model is the same function without, take it out of the file; else it is not supported."
        )


def content(config: BackboneConfig) -> dict[str, Any]:
    """The content of a config.json that transformers opens: what was read, with today's sizes.

    Raises:
      ValueError: If the config was made by hand with a feature that stands in no size.
    """
    family = known.get(config.kind)
    source: dict[str, Any] = json.loads(config.source) if config.source else {}
    if not source and config.parts.is_decoder:  # Special tokens are the tokenizer's to state.
        source = {"bos_token_id": None, "eos_token_id": None}
    written = {key: x for key, x in source.items() if key not in _NOT_KEPT} | {
        "model_type": family.name,
        "architectures": [family.model_class],
        **{key: getattr(config, field) for field, key in family.sizes.items()},
        **{key: x for key, x in family.required.items() if x is not None},
    }
    if "kv_heads" in family.sizes:
        written[family.sizes["kv_heads"]] = config.key_heads
    if config.parts.is_decoder:
        written["tie_word_embeddings"] = not config.has_table
    if _function(of_content(written, config.dtype, FILE_NAME)) != _function(config):
        raise ValueError(
            f"No {FILE_NAME} states this {config.kind} config: it has fields that were not read "
            "from one. Save it with the layer kinds and parts that its family reads."
        )
    return written


def _function(config: BackboneConfig) -> BackboneConfig:
    """The config without what a config.json does not state, and with what may go without saying."""
    return dataclasses.replace(
        config,
        remat="none",
        attention_block=0,
        transform=None,
        kv_heads=config.key_heads,
        head_size=config.head_width,
    )


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      ValueError: If the file cannot be read as one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a JSON object.")
    return found
