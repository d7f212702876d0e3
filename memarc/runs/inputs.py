"""Everything that decides the sums of a step besides rows and config, each by name.

A step that was charged may be made again, with the same noise, only by the same computation: the
difference of two computations under one noise is released without any.
"""

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import jax

from memarc.models import pretrained
from memarc.report import records
from memarc.training.sharding import Placement

WEIGHTS, OPTION = "bytes of the weights", "JAX's option"

_ENVIRONMENT = (
    *("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),
    *(
        "TF_CUDNN_DETERMINISTIC",
        "TF_DETERMINISTIC_OPS",
        "OMP_NUM_THREADS",
        "DNNL_DEFAULT_FPMATH_MODE",
    ),
)
"""Variables that compilers and their libraries read."""

_HARMLESS = (
    *("cache", "log", "traceback", "dump", "debug", "profile", "pgle", "verbose", "report", "warn"),
    *("platform", "backend", "visible_devices", "cross_host", "share_binary", "guard", "tracer"),
    *(
        "color",
        "url",
        "regex",
        "export",
        "serialization",
        "collectives",
        "mock",
        "pallas",
        "bcoo",
        "num_cpu",
    ),
)
"""Parts of names of JAX's options that change no number; all others count."""

_READ_SUFFIXES = (".json", ".safetensors", ".gguf")


def of_step(weights: str, placement: Placement | None) -> dict[str, str]:
    """What a step's sums follow from, by name.

    Args:
      weights: A folder, a file or a hub name.
      placement: How arrays lie on a mesh; None on one device.

    Returns:
      Name -> value, or a hash of it where it is long.
    """
    return {
        WEIGHTS: _hash_of_files(pretrained.find(weights)),
        "code": records.code_digest()[:16],
        **{f"version of {name}": version for name, version in records.versions().items()},
        **_of_machine(placement),
        **{f"environment variable {name}": os.environ.get(name, "") for name in _ENVIRONMENT},
        **{f"{OPTION} {name}": value for name, value in _options(jax.config.values).items()},
    }


def of_any_machine(inputs: Mapping[str, str]) -> dict[str, str]:
    """Those inputs of a step that stay as they are wherever a run goes on."""
    return {name: x for name, x in inputs.items() if name == WEIGHTS or name.startswith(OPTION)}


def _of_machine(placement: Placement | None) -> dict[str, str]:
    """Devices, their mesh, processes, compiler, and the kind of processor that compiles for it."""
    device = jax.devices()[0]
    return {
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "processes": str(jax.process_count()),
        "mesh": str(dict(placement.mesh.shape) if placement else "none"),
        "platform": " ".join(device.client.platform_version.split()),
        "processor": _processor(),
    }


def _processor() -> str:
    """The processor's model and a hash of what it can do, which a compiler makes use of."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # No Linux.
        return f"{platform.machine()} {platform.processor()}"
    named: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        named.setdefault(key.strip(), value.strip())
    can = hashlib.sha256(named.get("flags", named.get("Features", "")).encode()).hexdigest()[:8]
    return f"{named.get('model name', platform.machine())}, {os.cpu_count()} cores, {can}"


def _options(values: Mapping[str, object]) -> dict[str, str]:
    """JAX's options that may change a number."""
    return {
        name: str(value)
        for name, value in sorted(values.items())
        if not any(word in name for word in _HARMLESS)
    }


def _hash_of_files(place: Path) -> str:
    """A hash of a file, or of the files of a folder that hold config and weights."""
    files = [place] if place.is_file() else sorted(place.iterdir())
    found = hashlib.blake2b(digest_size=8)
    for file in files:
        if file.suffix in _READ_SUFFIXES:
            found.update(file.name.encode() + b"\0")
            with file.open("rb") as content:
                found.update(hashlib.file_digest(content, "blake2b").digest())
    return found.hexdigest()
