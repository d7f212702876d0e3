"""Reads and writes the config.json of a Hugging Face folder: sizes, and what is not supported."""

import json
import os
from pathlib import Path
from typing import Any

from memarc import gguf_header
from memarc.models import gguf_config
from memarc.models.config import KINDS, BackboneConfig

FILE_NAME = "config.json"

_SIZES = {  # Field of `BackboneConfig` -> key of config.json, where kinds do not differ.
    "kind": "model_type",
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "activation": "hidden_act",
}
_ENCODER = _SIZES | {
    "norm_epsilon": "layer_norm_eps",
    "type_vocab": "type_vocab_size",
    "pad_id": "pad_token_id",
}
_FIELDS = {
    "bert": _ENCODER,
    "roberta": _ENCODER,
    "gpt2": {
        "kind": "model_type",
        "vocab_size": "vocab_size",
        "width": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "feed_forward": "n_inner",
        "max_positions": "n_positions",
        "norm_epsilon": "layer_norm_epsilon",
        "activation": "activation_function",
    },
    "llama": _SIZES
    | {
        "norm_epsilon": "rms_norm_eps",
        "kv_heads": "num_key_value_heads",
        "rope_theta": "rope_theta",
    },
}
# What `transformers` takes where an old config.json says nothing; every other size must be given.
_WHEN_ABSENT = {
    "bert": {"layer_norm_eps": 1e-12, "pad_token_id": 0},
    "roberta": {"layer_norm_eps": 1e-12, "pad_token_id": 1},
    "gpt2": {"tie_word_embeddings": True},
    "llama": {"tie_word_embeddings": False, "rope_theta": 10000.0},
}
# Features that would change the function, with the one value that these backbones have.
_OF_ENCODERS = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
_REQUIRED = {
    "bert": _OF_ENCODERS,
    "roberta": _OF_ENCODERS,
    "gpt2": {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    "llama": {
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
        "rope_type": "default",
    },
}
_CLASSES = {
    "bert": "BertModel",
    "roberta": "RobertaModel",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
}


def read(weights: str | os.PathLike[str], dtype: str) -> BackboneConfig:
    """Reads the sizes of a backbone.

    Args:
      weights: A folder that holds a ``config.json``, or a GGUF file.
      dtype: Compute dtype, "float32" or "bfloat16"; it is the run's choice, not the folder's.

    Returns:
      The config.

    Raises:
      ValueError: If the file is missing or no JSON, the model is of another type, a size is
        missing, or the model has a feature that the backbone has not.
    """
    path, given = _described(weights)
    kind = given.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"{path}: model_type is {kind!r}; the supported ones are {tuple(KINDS)}.")
    given |= given.get("rope_parameters") or {}  # Where newer files state rotary positions.
    required = _REQUIRED[kind]
    wrong = {k: given[k] for k, value in required.items() if given.get(k, value) != value}
    if wrong:
        wanted = {key: required[key] for key in wrong}
        raise ValueError(f"{path} has {wrong}, which is not supported; it must be {wanted}.")
    known = {key: value for key, value in given.items() if value is not None}
    known = _derived(kind, {**_WHEN_ABSENT[kind], **known})
    fields = _FIELDS[kind]
    missing = [key for key in fields.values() if key not in known]
    if missing:
        raise ValueError(f"{path} lacks {missing}; add them as the model was trained.")
    config = BackboneConfig(
        **{field: known[key] for field, key in fields.items()},
        dtype=dtype,
        has_table=KINDS[kind].is_decoder and not known["tie_word_embeddings"],
    )
    if known.get("head_dim", config.head_width) != config.head_width:
        raise ValueError(
            f"{path} has head_dim {known['head_dim']}, which is not supported; it must be width "
            f"over heads, {config.head_width}."
        )
    return config


def _described(weights: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """The file that describes a backbone, and its content in the words of config.json."""
    if gguf_header.is_file(weights):
        return Path(weights), gguf_config.content(gguf_header.read(weights))
    path = Path(weights) / FILE_NAME
    return path, read_json(path)


def _derived(kind: str, known: dict[str, Any]) -> dict[str, Any]:
    """Fills in the sizes that a file may leave to be derived from others."""
    if kind == "gpt2" and "n_embd" in known:
        return {"n_inner": 4 * known["n_embd"], **known}
    if kind == "llama" and "num_attention_heads" in known:
        return {"num_key_value_heads": known["num_attention_heads"], **known}
    return known


def content(config: BackboneConfig) -> dict[str, Any]:
    """The content of config.json; dropout rates and the like stay at transformers' defaults."""
    sizes = {key: getattr(config, field) for field, key in _FIELDS[config.kind].items()}
    required = {k: x for k, x in _REQUIRED[config.kind].items() if not k.startswith("rope_")}
    more: dict[str, Any] = {"architectures": [_CLASSES[config.kind]], **required}
    if config.parts.is_decoder:  # Special tokens are the tokenizer's to state.
        more |= {"tie_word_embeddings": not config.has_table}
        more |= {"bos_token_id": None, "eos_token_id": None}
    if config.parts.is_rotary:
        sizes["num_key_value_heads"] = config.key_heads
        more["rope_parameters"] = {"rope_type": "default", "rope_theta": sizes["rope_theta"]}
    return {**sizes, **more}


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
