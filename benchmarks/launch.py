"""Runs a peer in a process of the Python that has its packages, and judges what it found."""

import dataclasses
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy

from benchmarks import files, tensors
from benchmarks.peers import worker

BOUND = 1e-4
"""The largest relative error of a clipped sum in float32 that counts as right.

memarc gives up 1e-5 of the clip norm (`memarc.privacy.clipping.ROUNDING_SLACK`), and some peers
divide by the norm plus 1e-6; neither is a mistake.
"""

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Peer:
    """A peer of the benchmark.

    Attributes:
      module: The module that computes (`benchmarks.peers.worker`).
      package: What has to be installed, in words.
      has_engines: Whether it has the engines of memarc to choose from.
    """

    module: str
    package: str
    has_engines: bool = False


PEERS: Mapping[str, Peer] = {
    "memarc": Peer("benchmarks.peers.memarc_engines", "memarc", has_engines=True),
    "opacus_ghost": Peer("benchmarks.peers.opacus_ghost", "opacus"),
    "opacus_hooks": Peer("benchmarks.peers.opacus_hooks", "opacus"),
    "fastdp": Peer("benchmarks.peers.fastdp", "fastDP"),
    "jax_privacy": Peer("benchmarks.peers.jax_privacy_net", "jax-privacy"),
    "opake": Peer("benchmarks.peers.opake", "opake"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How peers are run.

    Attributes:
      engines: Engines of peers that have them.
      microbatch_size: Rows at once, where a peer can cut a batch.
      steps: Timed steps.
      warmup: Steps before them.
      timeout: Seconds after which a process is given up.
    """

    engines: Sequence[str]
    microbatch_size: int
    steps: int
    warmup: int
    timeout: float


def check(peer: Peer, python: str, folder: Path, settings: Settings) -> dict[str, Any]:
    """Compares a peer's clipped sums with the loop in float64 of the same folder.

    Returns:
      versions and device; clipped_sum_error by engine, and skipped, a reason, where there is none
      or where one is beyond `BOUND`.
    """
    found = _run(peer, python, folder, settings)
    if "skipped" in found:
        return found
    wanted = safetensors.numpy.load_file(folder / files.WANTED)
    errors: dict[str, float] = {}
    try:
        for engine in found.pop("engines"):
            got = safetensors.numpy.load_file(folder / worker.sum_file(engine))
            errors[engine] = float(f"{tensors.error(got, wanted):.3g}")
    except ValueError as error:
        return {**found, "skipped": f"wrong: {error}"}
    found["clipped_sum_error"] = errors
    if not max(errors.values()) <= BOUND:  # NaN is no match either.
        found["skipped"] = f"wrong: its clipped sum is off by {max(errors.values()):.3g}"
    return found


def timed(peer: Peer, python: str, folder: Path, settings: Settings) -> dict[str, Any]:
    """Times a peer's plain and private steps; ``skipped`` is a reason why there are none."""
    return _run(peer, python, folder, settings)


def _run(peer: Peer, python: str, folder: Path, settings: Settings) -> dict[str, Any]:
    """Runs the worker, and reads what it wrote."""
    asks = {
        "engines": list(settings.engines) if peer.has_engines else [""],
        "microbatch_size": settings.microbatch_size,
        "steps": settings.steps,
        "warmup": settings.warmup,
    }
    (folder / worker.ASKS).write_text(json.dumps(asks), encoding="utf-8")
    result = folder / worker.RESULT
    result.unlink(missing_ok=True)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [python, "-m", "benchmarks.peers.worker", peer.module, str(folder)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=settings.timeout,
        )
    except OSError as error:
        return {"skipped": f"{python} cannot be run: {error.strerror}"}
    except subprocess.TimeoutExpired:
        return {"skipped": f"it had not ended after {settings.timeout:g} s"}
    if done.returncode or not result.exists():
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"skipped": f"failed: {said[-1]}"}
    found = json.loads(result.read_text(encoding="utf-8"))
    if "versions" not in found:
        found["skipped"] += f" (benchmarks/requirements has what {peer.package} needs)"
    return found
