"""What a GGUF file says of its model, in the words of Hugging Face's config.json.

Axes: K width of a head.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from memarc.gguf_header import Header

_DECODER = {  # Key of a file, after the name of the architecture -> key of config.json.
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
}
_HEAD = {"attention.key_length": "head_dim"}
_WINDOW = {"attention.sliding_window": "sliding_window"}
_CAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_GPT2 = {
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
    "context_length": "n_positions",
}
FACTORS = "rope_freqs.weight"
"""The tensor of factors by which LLaMA 3 slows rotary positions down."""

_SILU = {"hidden_act": "silu"}
_GELU = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}

_MAY_BE_ABSENT = {"num_key_value_heads", "head_dim", "rope_theta", "sliding_window"}
_UNDERSTOOD = {  # Keys that say nothing more, or that are read below.
    "vocab_size",
    "tensor_data_layout",
    "attention.value_length",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
}
_TABLES = {FACTORS, "rope_factors_long.weight", "rope_factors_short.weight"}
_TABLE = "token_embd.weight"
_LARGEST = {"gemma2": 46, "gemma3_text": 62}  # Layers of the largest model.
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""How LLaMA 3.1 and later slow rotary positions down; a file holds what follows from it."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How a GGUF file differs from the Hugging Face folder of the same model.

    Attributes:
      model_type: The family in the words of config.json.
      keys: Key of a file, after the name of the architecture -> key of config.json.
      constants: What config.json states, and a file leaves to who reads it.
      full_every: Every how many layers one attends to all tokens, where others have a window.
      rotary_except: Every how many layers one has no positions; 0 for none.
      interleaved: Whether the file holds each head's queries and keys as first, K/2-th, second, ..
      norm_offset: What the file adds to the scales of norms.
      has_biases: Whether all models of the family have biases, and config.json is silent on them.
      transposed: The maps that the folder holds the other way round.
    """

    model_type: str
    keys: Mapping[str, str]
    constants: Mapping[str, Any]
    full_every: int = 0
    rotary_except: int = 0
    interleaved: bool = False
    norm_offset: float = 0.0
    has_biases: bool = False
    transposed: tuple[str, ...] = ()


READ_BY_TRANSFORMERS = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2")
"""The architectures whose files transformers reads, too (a test compares with its reading)."""

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", _DECODER | _HEAD, _SILU, interleaved=True),
    "smollm3": Architecture("smollm3", _DECODER, _SILU, rotary_except=4, interleaved=True),
    "qwen2": Architecture("qwen2", _DECODER, _SILU, has_biases=True),
    "qwen3": Architecture("qwen3", _DECODER | _HEAD, _SILU),
    "olmo2": Architecture("olmo2", _DECODER, _SILU),
    "phi3": Architecture("phi3", _DECODER | _WINDOW, _SILU),
    "gemma": Architecture("gemma", _DECODER | _HEAD, _GELU, norm_offset=1.0),
    "gemma2": Architecture(
        "gemma2", _DECODER | _HEAD | _WINDOW | _CAPS, _GELU, full_every=2, norm_offset=1.0
    ),
    "gemma3": Architecture(
        "gemma3_text",
        _DECODER | _HEAD | _WINDOW,
        {**_GELU, "rope_local_base_freq": 10000.0},
        full_every=6,
        norm_offset=1.0,
    ),
    "gpt2": Architecture(
        "gpt2",
        _GPT2,
        {"activation_function": "gelu_new"},
        has_biases=True,
        transposed=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
    ),
}
"""Name of an architecture in a file -> how it is read."""


def architecture_of(header: Header) -> Architecture:
    """How a file is read.

    Raises:
      ValueError: If its family is not supported.
    """
    if header.architecture not in ARCHITECTURES:
        raise ValueError(
            f"{header.file} holds a model of the architecture {header.architecture!r}; the "
            f"supported ones are {tuple(ARCHITECTURES)}."
        )
    return ARCHITECTURES[header.architecture]


def content(header: Header) -> dict[str, Any]:
    """The content of the config.json of the same model.

    Args:
      header: The file's header.

    Raises:
      ValueError: If the architecture is not supported, a key is missing or not understood, or
        rotary positions are changed in a way that is not known.
    """
    architecture, stated = architecture_of(header), _stated(header)
    found = {key: stated[name] for name, key in architecture.keys.items() if name in stated}
    missing = sorted(set(architecture.keys.values()) - _MAY_BE_ABSENT - found.keys())
    wrong = {key: x for key, x in found.items() if isinstance(x, list | str | bool)}
    if missing or wrong:
        raise ValueError(
            f"{header.file} is damaged: of {header.architecture} it lacks {missing}, and these "
            f"must be numbers: {wrong}. Fetch it again."
        )
    understood = _UNDERSTOOD | architecture.keys.keys()
    if stated.get("attention.key_length") == _head_width(found):
        understood |= {"attention.key_length"}
    foreign = {name: x for name, x in stated.items() if x and name not in understood}
    if foreign:
        raise ValueError(
            f"{header.file} has {foreign}, which a {header.architecture} backbone is not known to "
            "have; the model may be another function."
        )
    if _TABLE not in header.tensors:
        raise ValueError(f"{header.file} lacks the tensor {_TABLE}. Fetch it again.")
    return {
        "model_type": architecture.model_type,
        **architecture.constants,
        **found,
        "vocab_size": header.tensors[_TABLE].shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        **_layers(architecture, found),
        **_biases(header, architecture),
        **_positions(header, stated, found),
    }


def _head_width(found: Mapping[str, Any]) -> int:
    """K."""
    if "num_attention_heads" not in found:  # GPT-2.
        return found["n_embd"] // found["n_head"]
    return found.get("head_dim", found["hidden_size"] // found["num_attention_heads"])


def _stated(header: Header) -> dict[str, Any]:
    """What a file says under the name of its architecture, without that name."""
    prefix = f"{header.architecture}."
    return {
        key.removeprefix(prefix): value
        for key, value in header.metadata.items()
        if key.startswith(prefix)
    }


def _layers(architecture: Architecture, found: Mapping[str, Any]) -> dict[str, Any]:
    """In which way layers differ, and by what windowed families divide their scores."""
    layers, more = found.get("num_hidden_layers", 0), {}
    if architecture.full_every:
        more["layer_types"] = [
            "sliding_attention" if i % architecture.full_every else "full_attention"
            for i in range(1, layers + 1)
        ]
        # The largest model of each family, and no other, divides by the width per head.
        is_largest = layers == _LARGEST[architecture.model_type]
        per_head = found["hidden_size"] // found["num_attention_heads"]
        more["query_pre_attn_scalar"] = per_head if is_largest else _head_width(found)
    if architecture.rotary_except:
        more["no_rope_layers"] = [
            int(i % architecture.rotary_except != 0) for i in range(1, layers + 1)
        ]
    return more


def _biases(header: Header, architecture: Architecture) -> dict[str, bool]:
    """Which maps have biases, told by the first layer's."""
    if architecture.has_biases:
        return {}
    tensors = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
    return {key: True for key, name in tensors.items() if name in header.tensors}


def _positions(
    header: Header, stated: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """How rotary positions are changed.

    Raises:
      ValueError: If it is not known how.
    """
    more: dict[str, Any] = {}
    width, turned = _head_width(found), stated.get("rope.dimension_count")
    if turned not in (None, 0, width):
        more["partial_rotary_factor"] = turned / width
    kind, tables = stated.get("rope.scaling.type", "none"), set(header.tensors) & _TABLES
    if kind == "linear" and not tables:
        more["rope_scaling"] = {"rope_type": kind, "factor": stated.get("rope.scaling.factor")}
    elif kind == "none" and tables == {FACTORS}:
        more["rope_scaling"] = _llama3(header, width, found.get("rope_theta", 10000.0))
    elif kind != "none" or tables:
        raise ValueError(
            f"{header.file} changes rotary positions by {kind!r} and {sorted(tables)}; 'linear', "
            "or LLaMA 3's table alone, is read."
        )
    return more


def _llama3(header: Header, width: int, theta: float) -> dict[str, Any]:
    """The numbers of LLaMA 3's way, checked against the table of factors that follows from them."""
    stored = header.tensors[FACTORS]
    given = np.fromfile(header.file, np.float32, math.prod(stored.shape), offset=stored.offset)
    factor = float(given.max(initial=1.0))
    wavelengths = 2 * math.pi * theta ** (np.arange(0, width, 2) / width)
    turns = _LLAMA3["original_max_position_embeddings"] / wavelengths
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    if given.shape != smooth.shape or not np.allclose(
        given, 1 / ((1 - smooth) / factor + smooth), rtol=1e-4
    ):
        raise ValueError(
            f"{header.file} changes rotary positions by factors that are not LLaMA 3's of "
            f"{_LLAMA3}, which alone are read."
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
