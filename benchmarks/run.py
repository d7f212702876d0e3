r"""Times memarc and its peers on the same weights and batches, each checked beforehand.

    python -m benchmarks.run --workload=w1,w2 --peers=memarc,opacus_ghost,jax_privacy \
        --methods=full,lora --python=opacus_ghost=ENV/bin/python --output=OUT.jsonl

For every workload and method memarc writes weights and rows once, from a public seed. Each peer
runs in processes of its own, in the Python that --python names for it (this one otherwise; an
environment is made from benchmarks/requirements). On a small case its clipped sum of rows'
gradients is compared with a loop in float64 first. A peer that is not installed, cannot do it or
sums wrongly is a line with the reason.

--tiny times sizes that take seconds anywhere: it shows that everything runs, and no speed.
"""

import datetime
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import files, launch, table, workloads
from experiments import cli
from memarc.measure import fresh
from memarc.privacy.auto import AUTO
from memarc.privacy.engines import check_engine
from memarc.report import lines

_WORKLOADS = flags.DEFINE_list("workload", ["w1"], "Names of benchmarks/workloads.py.")
_PEERS = flags.DEFINE_list("peers", list(launch.PEERS), "Names of benchmarks/launch.py.")
_METHODS = flags.DEFINE_list("methods", ["full", "lora"], "Tuning methods, each also with +remat.")
_ENGINES = flags.DEFINE_list("engines", [AUTO], "Engines of memarc.")
_MICROBATCH = flags.DEFINE_integer("microbatch_size", 0, "Rows at once where possible; 0: all.")
_PYTHON = flags.DEFINE_multi_string("python", [], "PEER=INTERPRETER; may be given several times.")
_STEPS = flags.DEFINE_integer("steps", 5, "Timed steps of each case.", lower_bound=1)
_WARMUP = flags.DEFINE_integer("warmup", 1, "Steps before them.", lower_bound=0)
_TIMEOUT = flags.DEFINE_float("timeout", 3600.0, "Seconds after which a peer is given up.")
_TINY = flags.DEFINE_bool("tiny", False, "Sizes that show nothing but that everything runs.")
_OUTPUT = flags.DEFINE_string("output", None, "File of JSON lines to write.")


def main() -> int:
    """Prints a line for every peer, workload, method and engine, and a table."""
    pythons = _pythons()
    settings = launch.Settings(
        engines=_ENGINES.value,
        microbatch_size=_MICROBATCH.value or sys.maxsize,
        steps=_STEPS.value,
        warmup=_WARMUP.value,
        timeout=_TIMEOUT.value,
    )
    for engine in settings.engines:
        check_engine(engine, AUTO)
    for name in _WORKLOADS.value:  # A mistake shows before anything is computed.
        for label in _METHODS.value:
            workloads.make_case(name, label, is_small=True)
    written: list[dict[str, Any]] = []
    with lines.writer(_OUTPUT.value) as write:

        def add(line: dict[str, Any]) -> None:
            written.append(line)
            write(line)

        for name in _WORKLOADS.value:
            for label in _METHODS.value:
                with tempfile.TemporaryDirectory() as folder:
                    _compare(name, label, Path(folder), pythons, settings, add)
    print(table.table(written, "terminal"))
    return 0


def _pythons() -> dict[str, str]:
    """The interpreter of every peer that is asked for.

    Raises:
      ValueError: If a peer is unknown, or named without an interpreter.
    """
    given: dict[str, str] = {}
    for text in _PYTHON.value:
        name, _, given[name] = text.partition("=")
        if not given[name]:
            raise ValueError(f"--python is {text!r}; give PEER=INTERPRETER (opake=ENV/bin/python).")
    for name in (*_PEERS.value, *given):
        if name not in launch.PEERS:
            raise ValueError(f"Unknown peer {name!r}; choose from {tuple(launch.PEERS)}.")
    return {name: given.get(name) or sys.executable for name in _PEERS.value}


def _compare(
    name: str,
    label: str,
    folder: Path,
    pythons: dict[str, str],
    settings: launch.Settings,
    add: Callable[[dict[str, Any]], None],
) -> None:
    """Adds the lines of one workload and method."""
    small, whole = folder / "check", folder / "timed"
    for place in (small, whole):
        place.mkdir()
    fresh.call(files.write_check, name, label, small)
    fresh.call(files.write_timed, name, label, whole, _TINY.value)
    case = workloads.make_case(name, label, is_small=_TINY.value)
    for peer, python in pythons.items():
        common = {
            "peer": peer,
            "workload": name,
            "method": label,
            "is_tiny": _TINY.value,
            "batch_size": case.batch_size,
            "seq_len": case.seq_len,
            "dtype": case.backbone.dtype,
            "layers": case.backbone.layers,
            "width": case.backbone.width,
            "options": dict(case.options),
            "date": datetime.date.today().isoformat(),
        }
        for line in compared(launch.PEERS[peer], python, small, whole, settings):
            add({**common, **line})


def compared(
    peer: launch.Peer, python: str, small: Path, whole: Path, settings: launch.Settings
) -> list[dict[str, Any]]:
    """Checks a peer on one folder, then times it on another.

    Returns:
      A line for the plain step and one for every engine's private step; or one line with
      "skipped", the reason.
    """
    checked = launch.check(peer, python, small, settings)
    errors = checked.pop("clipped_sum_error", {})
    found = checked if "skipped" in checked else launch.timed(peer, python, whole, settings)
    about = {"peer_versions": found.get("versions"), "device": found.get("device")}
    if "skipped" in found:
        error = max(errors.values()) if errors else None
        return [{**about, "step": None, "clipped_sum_error": error, "skipped": found["skipped"]}]
    plain = _figures(found["plain"])
    made = [{**about, "step": "plain", **plain}]
    for engine, figures in found["private"].items():
        private = _figures(figures)
        over = {
            "over_plain": round(private["median_seconds"] / plain["median_seconds"], 4),
            "cpu_over_plain": round(private["median_cpu_seconds"] / plain["median_cpu_seconds"], 4),
            "clipped_sum_error": errors[engine],
        }
        made.append({**about, "step": "private", **private, **over})
    return made


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    """What a line says of a step, with medians."""
    return {
        **found,
        "median_seconds": statistics.median(found["seconds"]),
        "median_cpu_seconds": statistics.median(found["cpu_seconds"]),
    }


if __name__ == "__main__":
    cli.run(main)
