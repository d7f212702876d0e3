"""How a run computes its clipped sums: the engine that "auto" becomes, and rows at once."""

from typing import Any

import jax

from memarc.ops.compiled import compile_within, held_bytes, own_bytes
from memarc.ops.flops import matrix_flops
from memarc.ops.uses import NeedsTaps
from memarc.privacy import auto
from memarc.privacy.clipping import Clipping
from memarc.privacy.mechanism import PrivacyConfig
from memarc.training import sharding
from memarc.training.loop import Problem
from memarc.training.step import GradientSettings, TrainState
from memarc.typing import Params


def resolve(
    problem: Problem, state: TrainState, privacy: PrivacyConfig, clipping: Clipping, memory: int
) -> GradientSettings:
    """Settles how clipped sums are computed, where a config leaves it open.

    Args:
      problem: What is trained.
      state: The train state, or its shapes, all of which lies on the devices meanwhile.
      privacy: The engine, which may be "auto", and rows at once, of which a device of a mesh takes
        no more than it has.
      clipping: The rule by which the run's noise was calibrated.
      memory: Bytes of one device, which an engine must fit to be chosen before others.

    Returns:
      The settings. "auto" has become the engine of `memarc.privacy.auto.choose`, for which the
      program of the longest rows was compiled by every engine that takes the loss.
    """
    most = sharding.rows_of_device(problem.placement, privacy.physical_batch_size)
    rows = min(privacy.microbatch_size, most)
    if privacy.engine != auto.AUTO:
        return GradientSettings(clipping, privacy.engine, rows)
    room = memory - held_bytes((state.step, state.noise_state, state.opt_state))

    def cost_of(engine: str) -> auto.Cost | None:
        settings = GradientSettings(clipping, engine, rows)
        flops = work(problem, state.trainable, settings)
        if flops is None:
            return None
        return auto.Cost(engine, _own_bytes(problem, state.trainable, settings, room), flops)

    chosen = auto.choose(auto.CANDIDATES, cost_of).engine
    return GradientSettings(clipping, chosen, rows)


def work(problem: Problem, trainable: Params, settings: GradientSettings) -> int | None:
    """The multiplications of a batch of the longest rows (`memarc.ops.flops`).

    Nothing is compiled, and parameters may be shapes.

    Returns:
      Their number; None if the loss does not take the engine's taps.
    """
    try:
        return matrix_flops(problem.accumulate(settings), *_arguments(problem, trainable))
    except NeedsTaps:
        return None


def _own_bytes(
    problem: Problem, trainable: Params, settings: GradientSettings, room: int
) -> int | None:
    """What a program takes beside its arguments; None if it does not fit so many bytes."""
    accumulate = jax.jit(problem.accumulate(settings), donate_argnums=0)
    figures, _ = compile_within(accumulate.lower(*_arguments(problem, trainable)), room)
    return None if figures is None else own_bytes(figures)


def _arguments(problem: Problem, trainable: Params) -> tuple[Any, ...]:
    """The shapes of what adds a batch of the longest rows to the clipped sum."""
    batch = problem.abstract_batch(max(problem.shapes))
    return (problem.abstract_sum(trainable), trainable, problem.frozen, *batch)
