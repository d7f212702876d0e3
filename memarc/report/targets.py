"""Devices to compile for: the local one, or TPUs and GPUs that are not there.

The compilers of TPUs (package libtpu) and of NVIDIA's GPUs (JAX's CUDA plugin) run on any machine
and report exact bytes of the device's memory; only shapes are needed, so nothing is allocated.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from memarc.report import gpus

TPU_TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
"""The smallest topology of each generation, of which one chip is used if none is named."""

RATES = {"v5e": (197e12, 200e9), "v6e": (918e12, 400e9)}
"""Published peaks of a chip: bfloat16 operations a second, and bytes a second that it receives from
other chips (half of the bidirectional figure). docs.cloud.google.com/tpu/docs/v5e and v6e."""

HBM = {"v4": 32 * 2**30, "v5e": 16 * 2**30, "v5p": 95 * 2**30, "v6e": 32 * 2**30}
"""Published bytes of a chip's memory, of which the compiler keeps some for itself."""

_ABSENT = {"tpu": TPU_TOPOLOGIES, "gpu": gpus.GPUS}


def devices(target: str) -> list[Any]:
    """Gives the devices of a target, in order.

    Args:
      target: "tpu:v5e" and the like (`TPU_TOPOLOGIES`) mean one chip, "tpu:v5e:4x4" a whole slice
        of that topology; "gpu:h100" and the like (`gpus.GPUS`) one GPU, "gpu:h100:8" as many of
        one host; and "cpu" or "gpu" the local device.

    Raises:
      ValueError: If the target is unknown or not to be had here.
    """
    kind, name, several = [*target.split(":", 2), "", ""][:3]
    if target not in ("cpu", "gpu") and name not in _ABSENT.get(kind, ()):
        choices = ["cpu", "gpu", *(f"{x}:{name}" for x, names in _ABSENT.items() for name in names)]
        raise ValueError(
            f"Unknown target {target!r}; choose one of {choices}, or several devices such as "
            "'tpu:v5e:4x4' and 'gpu:h100:8'."
        )
    if kind == "tpu":
        if several:
            return _described(f"{name}:{several}")
        return _described(TPU_TOPOLOGIES[name])[:1]
    if name:
        return gpus.devices(name, several or "1")
    try:
        return jax.devices(kind)[:1]
    except RuntimeError as error:
        raise ValueError(f"Target {target!r} needs such a device here: {error}") from error


def memory(target: str, found: Sequence[Any]) -> int:
    """Gives the bytes of one device of a target.

    Args:
      target: A target as `devices` takes it.
      found: What `devices` gave.

    Returns:
      What an accelerator's allocator may use, or all memory of a CPU's machine; of an accelerator
      that is not here what is published.
    """
    kind, _, rest = target.partition(":")
    if rest:
        name = rest.split(":")[0]
        return HBM[name] if kind == "tpu" else gpus.GPUS[name].memory
    limit = (found[0].memory_stats() or {}).get("bytes_limit")
    return limit or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def least_seconds(target: str, flops: float, received: float) -> tuple[float, float] | None:
    """Gives the least time of a step's work, and of what a chip receives, at published peaks.

    Args:
      target: A target as `devices` takes it.
      flops: The operations of one chip.
      received: The bytes that it receives from other chips.

    Returns:
      Both times in seconds; None for a target whose peaks are not known.
    """
    name = target.split(":")[1] if ":" in target else ""
    rates = RATES | {kind: (gpu.flops, gpu.received) for kind, gpu in gpus.GPUS.items()}
    if name not in rates:
        return None
    operations, bandwidth = rates[name]
    return flops / operations, received / bandwidth


def _described(topology: str) -> list[Any]:
    """The devices of a TPU topology that is not there."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # Do not ask a cloud for the machine's data.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # No device is locked by compiling.
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:  # Of several kinds, by what is missing.
        raise ValueError(
            f"Compiling for TPU {topology} needs libtpu, and a topology that there is; run: pip "
            f"install 'memarc[tpu]'. (The runtime said: {str(error).splitlines()[0][:200]})"
        ) from error
    return list(found.devices)
