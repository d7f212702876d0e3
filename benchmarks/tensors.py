"""Names and shapes of trained tensors as the peers in PyTorch have them.

Names are those of `benchmarks.peers.torch_net.Net`: "backbone." and a name of transformers;
"<module>.lora_A.weight" and "lora_B" of a map with a low-rank update; "head.weight", "head.bias".

Axes: I inputs, O outputs. Kernels are [O, I], as in PyTorch.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from memarc.measure.case import Case
from memarc.models import peft_files, pretrained
from memarc.models.families import known
from memarc.models.tensor_files import WEIGHTS
from memarc.typing import Params

PREFIX = "backbone."
_OF_PEFT = "base_model.model."


def flat(case: Case, trainable: Params) -> dict[str, np.ndarray]:
    """The tensors of a tree like a case's trainable parameters: weights, or a sum of gradients.

    Args:
      case: The case; its method is one of `benchmarks.workloads.METHODS`.
      trainable: {"tuning": .., "head": ..}, the latter where there is one.

    Returns:
      Name -> tensor.
    """
    found = _of_head(trainable.get("head", {}))
    with tempfile.TemporaryDirectory() as folder:
        if case.method == "full":
            tensors = _full(case, trainable["tuning"], Path(folder))
        else:
            tensors = _low_rank(case, trainable["tuning"], Path(folder))
    return found | {f"{PREFIX}{name}": x for name, x in tensors.items()}


def error(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """The L2 norm of the difference of two sets of tensors over that of the second.

    Raises:
      ValueError: If names or shapes differ, listing them.
    """
    shapes = [{name: x.shape for name, x in tensors.items()} for tensors in (got, wanted)]
    odd = sorted(
        name
        for name in shapes[0].keys() | shapes[1].keys()
        if shapes[0].get(name) != shapes[1].get(name)
    )
    if odd:
        stated = [f"{x}: {shapes[0].get(x)} for {shapes[1].get(x)}" for x in odd]
        raise ValueError(f"{len(odd)} tensors are not those that are trained: {'; '.join(stated)}.")
    difference = sum(_square(np.float64(got[name]) - wanted[name]) for name in wanted)
    return float(np.sqrt(difference / sum(_square(wanted[name]) for name in wanted)))


def _square(x: np.ndarray) -> float:
    return float(np.sum(np.square(x, dtype=np.float64)))


def _of_head(head: Params) -> dict[str, np.ndarray]:
    """A linear head, whose kernel is turned."""
    found = {"weight" if key == "kernel" else key: np.asarray(x).T for key, x in head.items()}
    return {f"head.{key}": np.ascontiguousarray(x) for key, x in found.items()}


def _full(case: Case, params: Params, folder: Path) -> dict[str, np.ndarray]:
    pretrained.save(folder, case.backbone, params, max_shard_bytes=None)
    return safetensors.numpy.load_file(folder / WEIGHTS)


def _low_rank(case: Case, pairs: Params, folder: Path) -> dict[str, np.ndarray]:
    peft_files.save(
        folder,
        case.backbone,
        pairs,
        alpha=case.options["alpha"],
        base="",
        head=None,
        params={},
    )
    family = known.get(case.backbone.kind)
    prefix = _OF_PEFT + ("" if case.backbone.parts.is_decoder else family.prefix)
    tensors = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    return {name.removeprefix(prefix): x for name, x in tensors.items()}
