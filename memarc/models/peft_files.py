"""LoRA as PEFT has it: names, shapes and scales of its files.

A tensor of a file may hold several of our kernels side by side (GPT-2's queries, keys and values).
PEFT has one pair for all of it: the factors of k kernels become one pair of k times the rank, each
of whose outputs reads its own factor.

Axes: L layers, I inputs, O outputs, R rank.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from memarc.models import lora
from memarc.models.config import BackboneConfig
from memarc.models.families import known
from memarc.models.hub_head import HubHead
from memarc.models.tensor_names import Entry
from memarc.typing import Params

_FILE, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
"""What PEFT writes before the names of the whole model."""


def save(
    folder: Path,
    config: BackboneConfig,
    pairs: Params,
    *,
    alpha: float,
    base: str,
    head: HubHead | None,
    params: Params,
) -> None:
    """Writes a folder that ``PeftModel.from_pretrained`` opens.

    Args:
      folder: An existing folder.
      config: The backbone.
      pairs: {target: {"a" [L, I, R], "b" [L, R, O]}} (`memarc.models.lora.Lora`).
      alpha: The update is alpha / R times a @ b.
      base: The weights that the update is of.
      head: The head of a classifier; None for a language model.
      params: The backbone's parameters, of which a head may change the last norm.

    Raises:
      ValueError: If a target is no tensor of a file.
    """
    tensors, ranks, is_turned = _factors(config, pairs)
    rank = next(iter(pairs.values()))["a"].shape[-1]
    odd = {name: count for name, count in ranks.items() if count != rank}
    content: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if head is None else "SEQ_CLS",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": is_turned,
        "target_modules": sorted(ranks),
        "rank_pattern": odd,
        "alpha_pattern": {name: alpha * count / rank for name, count in odd.items()},
        "modules_to_save": None if head is None else list(head.modules),
    }
    if head is not None:
        tensors |= {f"{_PREFIX}{name}": x for name, x in head.tensors.items()}
        tensors |= _last_norm(config, params, head)
    safetensors.numpy.save_file(tensors, folder / _FILE, metadata={"format": "pt"})
    (folder / _CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _factors(
    config: BackboneConfig, pairs: Params
) -> tuple[dict[str, np.ndarray], dict[str, int], bool]:
    """PEFT's tensors, the rank of each module, and whether the files hold [I, O]."""
    parts: dict[str, list[tuple[Entry, np.ndarray, np.ndarray]]] = {}
    entries = {entry.path: entry for entry in known.name_table(config)}
    prefix = known.get(config.kind).prefix
    for target, pair in pairs.items():
        entry = entries[("layers", *lora.TARGETS[target], "kernel")]
        for name, index in entry.tensors(config):
            a, b = (np.asarray(pair[key], np.float32)[index] for key in ("a", "b"))
            module = prefix + name.removesuffix(".weight")
            parts.setdefault(module, []).append((entry, a, b))
    tensors, ranks = {}, {}
    for module, found in parts.items():
        first, ranks[module] = found[0][0], sum(a.shape[1] for _, a, _ in found)
        outputs = first.file_shape()[0 if first.transposed else -1]
        up, done = np.zeros((outputs, ranks[module]), np.float32), 0
        for entry, _, b in found:
            columns = slice(done, done := done + len(b))
            for place, start, stop in entry.runs(0, b.shape[1]):
                up[place : place + stop - start, columns] = b[:, start:stop].T
        down = np.concatenate([a.T for _, a, _ in found])
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(down)
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = up
    is_turned = not next(iter(parts.values()))[0][0].transposed
    return tensors, ranks, is_turned


def _last_norm(config: BackboneConfig, params: Params, head: HubHead) -> Mapping[str, np.ndarray]:
    """The last norm, where the head has changed it."""
    if head.norm_shift is None:
        return {}
    prefix, found = known.get(config.kind).prefix, {}
    norm = params["final"]["norm"]
    for entry in known.name_table(config):
        if entry.path[:2] == ("final", "norm"):
            found[f"{_PREFIX}{prefix}{entry.name}"] = np.asarray(norm[entry.path[-1]], np.float32)
    return found
