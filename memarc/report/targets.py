"""Devices to compile for: the local one, or a TPU that is not there.

The TPU compiler runs on any machine (package libtpu) and reports exact bytes of the device's
memory; only shapes are needed, so nothing is allocated.
"""

import os
import re

import jax
from jax.experimental import topologies

TPU_TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
"""The smallest topology of each generation; one chip of it is used."""

_NEEDED = re.compile(r"(?:Used |temporaries \()([0-9.]+)([KMGT])")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def sharding(target: str) -> jax.sharding.Sharding:
    """A sharding on the one device of a target.

    Args:
      target: "tpu:v5e" and the like (`TPU_TOPOLOGIES`), or "cpu" or "gpu" for the local device.

    Raises:
      ValueError: If the target is unknown or not to be had here.
    """
    kind, _, generation = target.partition(":")
    choices = ["cpu", "gpu", *(f"tpu:{name}" for name in TPU_TOPOLOGIES)]
    if target not in choices:
        raise ValueError(f"Unknown target {target!r}; choose one of {choices}.")
    if kind == "tpu":
        return jax.sharding.SingleDeviceSharding(_described(generation))
    try:
        return jax.sharding.SingleDeviceSharding(jax.devices(kind)[0])
    except RuntimeError as error:
        raise ValueError(f"Target {target!r} needs such a device here: {error}") from error


def needed_bytes(error: Exception) -> int | None:
    """Bytes that a program needs, from the compiler's out-of-memory message; None for another.

    Zero if the message gives no number.
    """
    if "RESOURCE_EXHAUSTED" not in str(error):
        return None
    found = _NEEDED.search(str(error))
    return round(float(found[1]) * _UNITS[found[2]]) if found else 0


def _described(generation):
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # Do not ask a cloud for the machine's data.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # No device is locked by compiling.
    try:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=TPU_TOPOLOGIES[generation]
        )
    except Exception as error:  # Of several kinds, by what is missing.
        raise ValueError(
            "Compiling for a TPU needs libtpu; run: pip install 'memarc[tpu]'. "
            f"(The runtime said: {str(error).splitlines()[0][:200]})"
        ) from error
    return topology.devices[0]
