"""Measures one training step: compiled for any device, or timed on this one."""

import dataclasses
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from memarc.measure.case import Case, placed, plain_step, private_step
from memarc.measure.case import draw as draw_case
from memarc.models.config import REMAT
from memarc.ops.compiled import compile_within, compiled_bytes, own_bytes
from memarc.ops.flops import gathered_bytes, matrix_flops
from memarc.ops.uses import NeedsTaps
from memarc.privacy import auto, ways
from memarc.report import records, targets
from memarc.training.sharding import Placement

PLAIN = "none"
"""The engine of the step without privacy."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What to compile for: devices, and how they are arranged if there are several.

    Attributes:
      memory: Bytes of one device; a larger step does not fit, also where the compiler, as that of
        GPUs, does not refuse it.
    """

    devices: Sequence[Any]
    placement: Placement | None
    memory: int


def here() -> Target:
    """This process's first device."""
    devices = jax.devices()[:1]
    return Target(devices, None, targets.memory("", devices))


def compile_cheapest(
    case: Case, engines: Sequence[str], microbatch_size: int, target: Target
) -> dict[str, Any]:
    """The line of `compile_step` of the engine that `memarc.privacy.auto` chooses."""
    found: dict[str, dict[str, Any]] = {}

    def cost_of(engine: str) -> auto.Cost | None:
        try:
            line = found[engine] = compile_step(case, engine, microbatch_size, target)
        except NeedsTaps:
            return None
        return auto.Cost(engine, line["beyond_arguments_bytes"], line["flops"])

    best = auto.choose(engines, cost_of).engine
    return {"engine": best, **found[best]}


def compile_fitted(
    case: Case, fit: str, engines: Sequence[str], rows: int, target: Target
) -> tuple[Case, dict[str, Any]]:
    """The line of `compile_step` of the way that a user's wish chooses (`memarc.privacy.ways`).

    Args:
      case: The step; remat is tried too, unless the case has it.
      fit: What is wished; "balanced" is `compile_cheapest`.
      engines: Engines to choose from.
      rows: The most rows at once.
      target: What to compile for.

    Returns:
      The case, remat chosen, and the line, with engine and microbatch_size.
    """
    if fit == ways.BALANCED:
        return case, {"microbatch_size": rows, **compile_cheapest(case, engines, rows, target)}
    found: dict[ways.Way, dict[str, Any]] = {}

    def of(way: ways.Way) -> Case:
        return dataclasses.replace(
            case, backbone=dataclasses.replace(case.backbone, remat=way.remat)
        )

    def bytes_of(way: ways.Way) -> int | None:
        found[way] = compile_step(of(way), way.engine, way.rows, target)
        return found[way]["peak_bytes"]

    way = ways.choose(
        fit,
        engines,
        REMAT if case.backbone.remat == "none" else (case.backbone.remat,),
        rows=rows,
        memory=target.memory,
        work_of=lambda way: _work(of(way), way.engine, way.rows, target),
        bytes_of=bytes_of,
    )
    chosen = {"engine": way.engine, "microbatch_size": way.rows, "fit": fit}
    return of(way), {**chosen, **found[way]}


def compile_step(case: Case, engine: str, microbatch_size: int, target: Target) -> dict[str, Any]:
    """Compiles one step and reads the bytes of one device.

    Returns:
      The bytes of `compiled_bytes`; beyond_arguments_bytes (peak without weights, state and
      batch); flops of one device's matrix products; on a mesh, gathered_bytes and reduced_bytes
      that one device receives in a step; out_of_memory; compile_seconds. If the step does not fit,
      peak_bytes is None and needed_bytes what it would take.
    """
    placement = target.placement
    step = _step(case, engine, microbatch_size, placement)
    args = placed(case, engine, target.devices, placement)
    start = time.perf_counter()
    line: dict[str, Any] = {"flops": matrix_flops(step, *args)}
    if placement:
        trained = sum(x.size for x in jax.tree.leaves(args[0].trainable))
        line["gathered_bytes"] = gathered_bytes(step, *args)
        # A sum over all devices is scattered and gathered: each receives it nearly twice.
        line["reduced_bytes"] = round(2 * (1 - 1 / placement.size) * 4 * trained)
    lowered = jax.jit(step, donate_argnums=0).lower(*args)
    figures, needed = compile_within(lowered, target.memory)
    if figures is not None:
        fits = {"beyond_arguments_bytes": own_bytes(figures), "out_of_memory": False}
        return line | figures | fits | _since(start)
    lacking = {"peak_bytes": None, "beyond_arguments_bytes": None, "needed_bytes": needed}
    return line | lacking | {"out_of_memory": True} | _since(start)


def _since(start: float) -> dict[str, float]:
    """What the compilation took that began then."""
    return {"compile_seconds": round(time.perf_counter() - start, 1)}


def _work(case: Case, engine: str, rows: int, target: Target) -> int | None:
    """The multiplications of a step; None if the loss does not take the engine's taps."""
    step = _step(case, engine, rows, target.placement)
    try:
        return matrix_flops(step, *placed(case, engine, target.devices, target.placement))
    except NeedsTaps:
        return None


def time_step(case: Case, engine: str, microbatch_size: int, steps: int) -> dict[str, Any]:
    """Runs one case: to be called in a fresh process.

    Returns:
      median_seconds of a step, and all; peak_bytes of the allocator (of the whole process on a
      CPU), and drawing_peak_bytes, its peak before the first step; the compiled program's bytes;
      flops; compile_seconds; device.
    """
    step = _step(case, engine, microbatch_size)
    state, frozen, batch, is_padding = jax.jit(partial(draw_case, case, engine))(jax.random.key(1))
    jax.block_until_ready(frozen)
    drawing = _peak_bytes()
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, frozen, batch, is_padding).compile()
    line = {
        "compile_seconds": round(time.perf_counter() - start, 1),
        "flops": matrix_flops(step, state, frozen, batch, is_padding),
        "device": records.device(),
        **compiled_bytes(compiled),
    }
    line["compiled_peak_bytes"] = line.pop("peak_bytes", None)
    seconds = []
    for _ in range(steps + 2):  # Two to warm up.
        start = time.perf_counter()
        state, _ = compiled(state, frozen, batch, is_padding)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - start)
    timed = seconds[2:]
    return line | {
        "median_seconds": statistics.median(timed),
        "seconds": [round(x, 5) for x in timed],
        "peak_bytes": _peak_bytes(),
        "drawing_peak_bytes": drawing,
    }


def _step(
    case: Case, engine: str, microbatch_size: int, placement: Placement | None = None
) -> Callable[..., Any]:
    """The step of an engine, or the one without privacy."""
    if engine == PLAIN:
        if placement:
            raise ValueError(f"Engine {PLAIN!r} has no mesh; leave one of them out.")
        return plain_step(case)
    return private_step(case, engine, microbatch_size, placement)


def _peak_bytes() -> int:
    """The peak of the device's allocator so far, or of this process on a CPU."""
    statistics_of_device = jax.devices()[0].memory_stats()
    if statistics_of_device:
        return statistics_of_device["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
