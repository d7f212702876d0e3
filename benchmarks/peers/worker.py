"""Runs one peer on the job of a folder, in the Python that has the peer's packages.

    python -m benchmarks.peers.worker MODULE FOLDER

It writes ``result.json`` into the folder, and one file of tensors for each clipped sum. Until the
peer's module is imported it needs the standard library alone.
"""

import importlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import meter
from benchmarks.peers.job import Ask, Job, read

AUTO = "auto"
"""The engine by which a peer is asked to choose one."""

ASKS, RESULT = "asks.json", "result.json"


def main(module: str, folder: Path) -> None:
    """Computes what ``asks.json`` asks for."""
    try:
        peer = importlib.import_module(module)
    except ModuleNotFoundError as error:
        _write(folder, {"skipped": str(error)})
        return
    asks = json.loads((folder / ASKS).read_text(encoding="utf-8"))
    job = read(folder)
    found = {"versions": _versions(peer.DISTRIBUTIONS), "device": peer.device()}
    try:
        found |= _check(peer, job, asks) if job.is_check else _time(peer, job, asks)
    except NotImplementedError as error:
        found["skipped"] = str(error)
    _write(folder, found)


def sum_file(engine: str) -> str:
    """The name of the file of an engine's clipped sum."""
    return f"sum-{engine}.safetensors"


def _check(peer: Any, job: Job, asks: dict[str, Any]) -> dict[str, Any]:
    """Writes every engine's clipped sum, and that of each that might be chosen."""
    from safetensors.numpy import save_file

    engines = dict.fromkeys(
        candidate
        for engine in asks["engines"]
        for candidate in (peer.CANDIDATES if engine == AUTO else (engine,))
    )
    for engine in engines:
        rows = min(asks["microbatch_size"], job.rows)
        save_file(peer.clipped_sum(job, Ask(engine, rows)), job.folder / sum_file(engine))
    return {"engines": list(engines)}


def _time(peer: Any, job: Job, asks: dict[str, Any]) -> dict[str, Any]:
    """Times the step without privacy, then those of every engine, one after the other."""
    count, warmup, rows = asks["steps"], asks["warmup"], min(asks["microbatch_size"], job.rows)
    found: dict[str, Any] = {"private": {}}
    found["plain"] = meter.measure(lambda: peer.plain(job), count, warmup, peer.meter())
    for engine in asks["engines"]:
        ask = Ask(engine, rows)
        if engine == AUTO:
            ask = Ask(engine := peer.chosen(job, ask), rows)
        found["private"][engine] = meter.measure(
            lambda ask=ask: peer.private(job, ask), count, warmup, peer.meter()
        ) | {"engine": engine, "microbatch_size": rows}
    return found


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python and of a peer's packages."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in distributions},
    }


def _write(folder: Path, found: dict[str, Any]) -> None:
    (folder / RESULT).write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
