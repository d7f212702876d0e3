r"""Reports the memory of whole private training steps; one JSON line a method, no device needed.

    python -m experiments.memory --config=configs/memory/roberta_large.py --target=tpu:v5e \
        --methods=side,reversible,lora,lora+remat --batch_size=32 --seq_len=128 --output=FILE

The program is the real step (clipping, noise, AdamW update), compiled for abstract arrays. Of
several engines, and "auto" stands for all, the line is that of the one with the smallest product
of memory beyond arguments and work; "none" is the step without privacy. --fit=least_memory, fastest
or bytes such as 12GiB chooses rows at once and remat as well (`privacy.fit` of a run). A step that
does not fit the target is a line with out_of_memory. --sweep=layers:12,24,48 (or batch_size,
seq_len) repeats all methods. With --target=gpu a step is also run in a process of its own, and the
allocator's peak reported, with that of drawing the weights before it: where both are equal, the
step's is less. Bytes are of one device. --places compiles nothing: it prints of every trainable
parameter how its norm is taken by the engines ghost and book_keeping.

Of a slice, --target=tpu:v5e:4x4 --mesh=data:4,model:4, bytes and work are of one chip, and the line
says what a chip receives from others in a step; --batch_size is of all chips together.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from experiments import cli, measuring, rows_at_once, step_sizes
from memarc.measure import fresh
from memarc.measure import step as measure
from memarc.measure.case import Case, places
from memarc.privacy import ways
from memarc.report import lines, targets
from memarc.training import sharding

_TARGET = flags.DEFINE_string("target", "tpu:v5e", "tpu:v5e, gpu:h100, gpu, cpu, ...")
_MESH = flags.DEFINE_string("mesh", "model:1", "data:N,model:M of several devices; data: the rest.")
_CUT_STATE = flags.DEFINE_bool("cut_state", False, "Cut parameters in training over devices too.")
_SWEEP = flags.DEFINE_string("sweep", None, "FIELD:VALUES of layers, batch_size or seq_len.")
_PLACES = flags.DEFINE_bool("places", False, "Print how norms are taken, and nothing else.")

_FIT = flags.DEFINE_string("fit", ways.BALANCED, "balanced, least_memory, fastest or 12GiB.")


def main() -> int:
    """Prints the lines."""
    engines = step_sizes.candidates()
    cases = [
        step_sizes.sized(label, sizes)
        for sizes in _sizes(_SWEEP.value)
        for label in measuring.METHODS.value
    ]
    if _PLACES.value:
        for case in cases:
            print(f"{case.label}, {case.backbone.layers} layers:", *places(case), sep="\n  ")
        return 0
    if _TARGET.value == "gpu":
        # This process would take most of the memory that the one that measures needs.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    else:
        jax.config.update("jax_platforms", "cpu")  # Else a TPU runtime would look for its device.
    devices, mesh = targets.devices(_TARGET.value), _mesh(_MESH.value)
    limit = targets.memory(_TARGET.value, devices)
    given = []
    for case in cases:
        placement = sharding.place(mesh, devices, case.batch_size)
        size = rows_at_once.microbatch_size(sharding.rows_of_device(placement, case.batch_size))
        given.append((case, measure.Target(devices, placement, limit), size))
    ways.limit_of(_FIT.value)
    with lines.writer(measuring.OUTPUT.value) as write:
        for case, target, size in given:
            line: dict[str, Any] = {"target": _TARGET.value}
            if target.placement:
                line |= {**target.placement.mesh.shape, "state": mesh.state}
            measured, figures = _measure(case, engines, size, target)
            write(measured.described | line | figures)
    return 0


def _mesh(text: str) -> sharding.MeshConfig:
    """The mesh of --mesh."""
    parts = [part.partition(":") for part in text.split(",")]
    sizes = {name: size for name, _, size in parts}
    if not set(sizes) <= set(sharding.AXES) or not all(x.isdecimal() for x in sizes.values()):
        raise ValueError(f"Unknown mesh {text!r}; give sizes such as data:4,model:4.")
    return sharding.MeshConfig(
        data=int(sizes["data"]) if "data" in sizes else None,
        model=int(sizes.get("model", 1)),
        state="cut" if _CUT_STATE.value else "whole",
    )


def _measure(
    case: Case, engines: Sequence[str], size: int, target: measure.Target
) -> tuple[Case, dict[str, Any]]:
    """The case and line of what is chosen: engine, and with --fit rows at once and remat."""
    case, line = measure.compile_fitted(case, _FIT.value, engines, size, target)
    if _TARGET.value == "gpu" and not line["out_of_memory"]:
        size = line["microbatch_size"]
        timed = fresh.call(measure.time_step, case, line["engine"], size, 1)
        line["measured_peak_bytes"] = timed["peak_bytes"]
        line["drawing_peak_bytes"] = timed["drawing_peak_bytes"]
    return case, line


def _sizes(sweep: str | None) -> list[dict[str, int]]:
    """The sizes of each repetition, as changes to the flags."""
    if sweep is None:
        return [{}]
    field, _, values = sweep.partition(":")
    numbers = values.split(",")
    if field not in step_sizes.SIZES or not all(x.isdecimal() and int(x) for x in numbers):
        raise ValueError(
            f"Unknown sweep {sweep!r}; give FIELD:VALUES such as layers:12,24 with one of "
            f"{step_sizes.SIZES}."
        )
    return [{field: int(x)} for x in numbers]


if __name__ == "__main__":
    cli.run(main)
