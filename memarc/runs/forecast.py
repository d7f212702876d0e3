"""What a run's own programs will take: bytes on any device, seconds on this one.

A run is sketched from its config and the sizes of its weights. Its programs are those that
`memarc.training.loop` will compile; what they are timed on is random, so no row is read.

Axes: B examples of a compiled call, R sequences of an example that has several, T tokens.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from memarc import batches
from memarc.models.head import HeadConfig
from memarc.ops.compiled import compiled_bytes, held_bytes, needed_bytes
from memarc.privacy import noise
from memarc.report import memory
from memarc.runs import assemble
from memarc.runs.largest import most_that_fit
from memarc.runs.parts import Parts
from memarc.runs.plan import Pace
from memarc.runs.settings import Settings
from memarc.training import engine, loop, optimizer, sharding, step
from memarc.typing import Params, PyTree

_CALLS, _LEAST_SECONDS = 2, 1.0
"""A program is timed so often, and for so long, at least."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sketch:
    """A run of which nothing is in memory.

    Attributes:
      parts: Its parts; parameters are shapes.
      problem: What is trained; frozen parameters are shapes, and there are no rows.
      state: The shapes of the train state.
    """

    parts: Parts
    problem: loop.Problem
    state: step.TrainState

    @property
    def trained(self) -> int:
        """How many numbers are trained."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.trainable))

    @property
    def released(self) -> int:
        """How many numbers a step sums and noises: those that are trained, or one slope."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.summed))

    @property
    def transforms(self) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """From clipped sum to private gradient, and from gradient to update."""
        return _transforms(self.parts.settings)


@dataclasses.dataclass(frozen=True, eq=False)
class Compiled:
    """A run's programs for some device, and what they take.

    Attributes:
      programs: The programs.
      engine: Their engine, chosen where the config says "auto".
      taken: engine; microbatch_size and physical_batch_size; backward_bytes, as a run's record
        says it; step_bytes, the compiler's figures of the call that adds the longest rows to the
        sum, which the record has as well; whole_bytes, all that is set aside on one device at the
        worst moment, optimizer and weights included; compile_seconds.
    """

    programs: loop.Programs
    engine: str
    taken: dict[str, Any]


def sketch(settings: Settings, devices: Sequence[Any]) -> Sketch:
    """Puts a run together from its config and the sizes of its weights.

    Args:
      settings: The run.
      devices: Where its arrays would lie (`memarc.report.targets.devices`, or all local ones).

    Raises:
      ValueError: If config, tokenizer and sizes do not go together.
    """
    placement = sharding.place(settings.mesh, devices, settings.privacy.physical_batch_size)
    parts = assemble.sketch(settings, None, placement)
    state, frozen = jax.eval_shape(partial(_start, parts), jax.random.key(0), parts.params)
    shapes = parts.shapes
    if placement:
        state, frozen = placement.abstract_state(state), placement.abstract_frozen(frozen)
    else:
        one = jax.sharding.SingleDeviceSharding(devices[0])
        state, frozen, shapes = _lying((state, frozen, shapes), one)
    problem = loop.Problem(
        loss_fn=parts.model.loss,
        precompute=parts.model.precompute,
        frozen=frozen,
        chunks=lambda indices: (),
        shapes=shapes,
        coins=batches.COINS if parts.model.needs_coins else None,
        placement=placement,
    )
    return Sketch(parts, problem, state)


def compile_for(drawn: Sketch, limit: int) -> Compiled:
    """Compiles a run's programs and reads what they take on one device.

    Args:
      drawn: The run.
      limit: Bytes of one device, by which "auto" chooses (`memarc.training.engine.resolve`).

    Raises:
      jax.errors.JaxRuntimeError: If one does not fit the device (`does_not_fit`).
    """
    privacy, problem, state = drawn.parts.settings.privacy, drawn.problem, drawn.state
    gradient = engine.resolve(problem, state, privacy, privacy.rule, limit)
    programs = loop.compile_programs(problem, state, gradient, *drawn.transforms)
    longest = max(problem.shapes)
    kept = memory.backward_bytes_per_example(
        *problem.differentiated(state.point), problem.shapes[longest]
    )
    taken = {
        "engine": gradient.engine,
        "microbatch_size": privacy.microbatch_size,
        "physical_batch_size": privacy.physical_batch_size,
        "backward_bytes": kept * privacy.microbatch_size,
        "step_bytes": compiled_bytes(programs.accumulate[longest]),
        "whole_bytes": _whole(drawn, programs),
        "compile_seconds": round(programs.compile_seconds, 1),
    }
    return Compiled(programs, gradient.engine, taken)


def does_not_fit(error: Exception) -> bool:
    """Whether a compiler said that a program does not fit its device."""
    return needed_bytes(error) is not None


def largest_microbatch(
    settings: Settings, name: str, devices: Sequence[Any], limit: int, most: int
) -> int | None:
    """The most rows that a device can differentiate at once, its calls being of as many.

    Args:
      settings: The run.
      name: The engine of the clipped sums.
      devices: The device, or those of a mesh.
      limit: Bytes of one device.
      most: Rows beyond which nothing is gained: those of a batch.

    Returns:
      The number, which was compiled, on a mesh for each device; at most ``most``; None if a single
      row does not fit.
    """

    def taken(rows: int) -> int | None:
        return bytes_of(_at_once(settings, name, rows, len(devices)), devices, limit)

    return most_that_fit(taken, limit, most)


def bytes_of(settings: Settings, devices: Sequence[Any], limit: int) -> int | None:
    """All that is set aside on one device where rows are longest; None if the compiler refuses.

    Of an engine that is "auto", the ``limit`` is that of `compile_for`.
    """
    longest = dataclasses.replace(settings.data, buckets=())
    try:
        drawn = sketch(dataclasses.replace(settings, data=longest), devices)
        found = compile_for(drawn, limit)
    except jax.errors.JaxRuntimeError as error:
        if not does_not_fit(error):
            raise
        return None
    return found.taken["whole_bytes"]


def pace(drawn: Sketch, compiled: Compiled) -> dict[int, Pace]:
    """Times a run's programs on this device, on random tokens.

    Returns:
      Length T -> how long a step's parts take if all rows are as long. Lengths of rows are private,
      so a run of several buckets lies between.
    """
    parts, problem = drawn.parts, drawn.problem
    state, frozen = _drawn(parts, jax.random.key(1))
    if problem.placement:
        state, frozen = problem.placement.place_state(state), problem.placement.place_frozen(frozen)
    rows = parts.settings.privacy.physical_batch_size
    update_seconds = _seconds(
        lambda state: compiled.programs.update(state, problem.zero_sum(state.summed))[0],
        jax.tree.map(jnp.copy, state),  # It is donated.
    )
    found = {}
    for length, program in compiled.programs.accumulate.items():
        batch = problem.placed(_random(parts, length), np.zeros((rows,), bool))
        add = partial(_added, program, (state.point, frozen, *batch))
        found[length] = Pace(_seconds(add, problem.zero_sum(state.summed)), update_seconds, rows)
    return found


def _added(program: jax.stages.Compiled, given: tuple[Any, ...], grad_sum: PyTree) -> PyTree:
    """A sum to which a program has added a batch."""
    return program(grad_sum, *given)


def _start(parts: Parts, key: jax.Array, params: Params) -> tuple[step.TrainState, Params]:
    """The state of a run before its first step, and its frozen parameters."""
    trainable, frozen = parts.model.init(key, params)
    directions = parts.settings.privacy.directions(key)
    return step.init_state(trainable, *_transforms(parts.settings), directions), frozen


def _drawn(parts: Parts, key: jax.Array) -> tuple[step.TrainState, Params]:
    """Gives what `_start` gives, around a random backbone where the parts hold none."""
    if not isinstance(jax.tree.leaves(parts.params)[0], jax.ShapeDtypeStruct):
        return jax.jit(partial(_start, parts))(key, parts.params)

    def draw(key: jax.Array) -> tuple[step.TrainState, Params]:
        one, other = jax.random.split(key)
        weights = assemble.random_weights(parts.backbone, parts.settings.model, one)
        return _start(parts, other, weights)

    return jax.jit(draw)(key)


def _transforms(
    settings: Settings,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """From clipped sum to private gradient, and to update; scale and schedule cost nothing."""
    divisor = settings.privacy.expected_batch_size
    privatize = noise.privatize_sum(stddev=1.0, divisor=divisor, key=jax.random.key(0))
    return privatize, optimizer.build(settings.optimizer, 100)


def _random(parts: Parts, length: int) -> dict[str, Any]:
    """A batch of random tokens without padding."""
    settings, model = parts.settings, parts.model
    shapes = parts.shapes[length]
    head = getattr(model, "head", None)
    tokens = shapes[batches.INPUT_IDS].shape  # [B, T] or [B, R, T]
    flat = batches.random(
        settings.kind,
        jax.random.key(2),
        int(np.prod(tokens[:-1])),
        length,
        vocab_size=parts.backbone.vocab_size,
        classes=head.classes if isinstance(head, HeadConfig) else 1,
    )
    flat[batches.COINS] = jax.random.bits(jax.random.key(3), (tokens[0], 2), jnp.uint32)
    return {name: np.asarray(flat[name]).reshape(x.shape) for name, x in shapes.items()}


def _seconds(function: Callable[[PyTree], PyTree], donated: PyTree) -> float:
    """The mean seconds of a call that gives back what it is given; one call warms up."""
    given = jax.block_until_ready(function(donated))
    start, calls = time.perf_counter(), 0
    while calls < _CALLS or time.perf_counter() - start < _LEAST_SECONDS:
        given = jax.block_until_ready(function(given))
        calls += 1
    return (time.perf_counter() - start) / calls


def _whole(drawn: Sketch, programs: loop.Programs) -> int:
    """Bytes of one device at the worst moment of a step: in one of the programs."""
    state, frozen = drawn.state, drawn.problem.frozen
    beside = held_bytes((state.step, state.noise_state, state.opt_state))
    adding = max(_set_aside(program) for program in programs.accumulate.values())
    return max(adding + beside, _set_aside(programs.update) + held_bytes(frozen))


def _set_aside(program: jax.stages.Compiled) -> int:
    """What is set aside for a program; its peak may have arrays in on-chip memory too."""
    return compiled_bytes(program).get("reserved_bytes", 0)


def _lying(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """The shapes of a tree, all lying alike."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _at_once(settings: Settings, engine: str, rows: int, devices: int) -> Settings:
    """A run that differentiates so many rows at once on each device."""
    privacy = dataclasses.replace(
        settings.privacy,
        engine=engine,
        microbatch_size=rows,
        physical_batch_size=rows * devices,
    )
    return dataclasses.replace(settings, privacy=privacy)
