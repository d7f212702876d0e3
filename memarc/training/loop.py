"""The one training loop: draw, accumulate, update, log, checkpoint; stops cleanly when asked.

Axes: B rows of a batch, T tokens.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax

from memarc.privacy import sampling, summation, zeroth_order
from memarc.privacy.mechanism import Mechanism
from memarc.privacy.sampling import Streams
from memarc.privacy.summation import CompensatedSum
from memarc.privacy.zeroth_order import Line
from memarc.training import step
from memarc.training.checkpoint import Checkpoints
from memarc.training.log import Log, NoLog
from memarc.training.prefetch import prefetch
from memarc.training.sharding import Placement
from memarc.typing import Array, Batch, LossFn, Params, Precompute

Chunks = Callable[[np.ndarray], Iterable[tuple[int, Batch, np.ndarray]]]
"""``rows of a draw -> (length T, batch [B, ...], is_padding bool[B])``, shapes fixed by T."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is trained, on what.

    Attributes:
      loss_fn: Per-example losses (`memarc.typing.LossFn`).
      precompute: The part without gradient.
      frozen: Parameters that are read only; an argument of every step, never baked in.
      chunks: Cuts a draw into batches.
      shapes: Length T -> abstract batch of that length, one per bucket.
      placement: None on one device, or where arrays lie on a mesh; ``frozen`` lies there.
      coins: None, or the name under which a batch gets two random words for each row,
        uint32[B, 2], fresh at every step; the batches of ``shapes`` have it too.
    """

    loss_fn: LossFn
    precompute: Precompute
    frozen: Params
    chunks: Chunks
    shapes: Mapping[int, Any]
    coins: str | None = None
    placement: Placement | None = None

    def zero_sum(self, summed: Params) -> CompensatedSum:
        """The clipped sum of an empty draw, shaped like a state's ``summed``."""
        if self.placement:
            return self.placement.zero_sum(summed)
        return summation.zero(summed)

    def abstract_sum(self, summed: Params) -> CompensatedSum:
        """The shapes of `zero_sum`, of what may be shapes itself."""
        if self.placement:
            return self.placement.abstract_sum(summed)
        return jax.eval_shape(summation.zero, summed)

    def accumulate(self, settings: step.GradientSettings) -> Callable[..., CompensatedSum]:
        """Builds ``(grad_sum, point, frozen, batch, is_padding[B]) -> grad_sum``."""
        accumulate = step.make_accumulate(self.loss_fn, self.precompute, settings)
        if self.placement:
            return self.placement.accumulate(accumulate, self.frozen)
        return accumulate

    def differentiated(self, point: Params | Line) -> tuple[LossFn, Precompute, Params, Params]:
        """Loss, precompute, trainable and frozen parameters that the engines are given."""
        return zeroth_order.differentiated(self.loss_fn, self.precompute, point, self.frozen)

    def abstract_batch(self, length: int) -> tuple[Any, Any]:
        """Gives an abstract batch of a bucket, and its padding mask."""
        batch = self.shapes[length]
        rows = jax.tree.leaves(batch)[0].shape[0]
        given = (batch, jax.ShapeDtypeStruct((rows,), bool))
        return self.placement.abstract_rows(given) if self.placement else given

    def placed(self, batch: Batch, is_padding: np.ndarray) -> tuple[Batch, Any]:
        """Puts a batch that is in host memory on the devices."""
        given = (batch, is_padding)
        return self.placement.rows(given) if self.placement else jax.device_put(given)


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled programs of a run.

    Attributes:
      accumulate: Length T -> the program that adds a batch of that length to the clipped sum.
      update: The program that noises the sum and updates the state.
      compile_seconds: The time that all of them took.
    """

    accumulate: Mapping[int, jax.stages.Compiled]
    update: jax.stages.Compiled
    compile_seconds: float


def compile_programs(
    problem: Problem,
    state: step.TrainState,
    settings: step.GradientSettings,
    privatize: optax.GradientTransformation,
    optimizer: optax.GradientTransformation,
) -> Programs:
    """Compiles everything before the first draw, so that nothing is compiled in view of one.

    State and frozen parameters may be shapes: nothing is computed.
    """
    start = time.perf_counter()
    accumulate = jax.jit(problem.accumulate(settings), donate_argnums=0)
    update = step.make_update(privatize, optimizer)
    if problem.placement:
        update = problem.placement.update(update)
    update = jax.jit(update, donate_argnums=0)
    grad_sum = problem.abstract_sum(state.summed)
    compiled = {
        length: accumulate.lower(
            grad_sum, state.point, problem.frozen, *problem.abstract_batch(length)
        ).compile()
        for length in problem.shapes
    }
    return Programs(
        accumulate=compiled,
        update=update.lower(state, grad_sum).compile(),
        compile_seconds=time.perf_counter() - start,
    )


def train(
    problem: Problem,
    programs: Programs,
    state: step.TrainState,
    mechanism: Mechanism,
    streams: Streams,
    *,
    checkpoints: Checkpoints,
    log: Log | NoLog,
    schedule: optax.Schedule,
    charge: Callable[[int], None],
    watch: Callable[[int, step.TrainState], None],
    should_stop: Callable[[], bool],
) -> step.TrainState:
    """Makes the updates that the plan still has, from ``state.step`` on.

    A resumed run draws the samples and the noise that the uninterrupted one would have drawn.

    Args:
      problem: What is trained.
      programs: What `compile_programs` gives.
      state: The state to start from; donated.
      mechanism: Fixes draws, number of steps and noise.
      streams: Secret randomness, of which ``sampling`` and ``coins`` are used here.
      checkpoints: Saves at the start, every so many steps, at a stop, and at the end.
      log: Receives metrics that are safe to publish.
      schedule: Learning rate by step, for the log.
      charge: Called with the number of an update before its noise is drawn; returns when that
        is written down (`memarc.privacy.ledger`).
      watch: Called with the number of an update and the state after it, which it may read alone.
      should_stop: Asked after every update; True ends the loop after a checkpoint.

    Returns:
      The last state; its ``step`` is below ``mechanism.steps`` if the loop was stopped.
    """
    first = int(state.step)
    checkpoints.ensure_begun(state)
    with prefetch(_inputs(problem, mechanism, streams, first)) as inputs:
        for number in range(first, mechanism.steps):
            grad_sum = problem.zero_sum(state.summed)
            while (given := next(inputs)) is not None:
                length, batch, is_padding = given
                grad_sum = programs.accumulate[length](
                    grad_sum, state.point, problem.frozen, batch, is_padding
                )
            done = number + 1
            charge(done)
            state, metrics = programs.update(state, grad_sum)
            log.step(done, {"learning_rate": schedule(number), **metrics}, waited=inputs.waited)
            watch(done, state)
            stop = should_stop() and done < mechanism.steps
            checkpoints.save(state, done, force=stop or done == mechanism.steps)
            if stop:
                break
    checkpoints.wait()
    return state


def _inputs(
    problem: Problem, mechanism: Mechanism, streams: Streams, first: int
) -> Iterator[tuple[int, Batch, Array] | None]:
    """Yields ``(length, batch, is_padding)`` of every batch of a draw, then None, for each step."""
    for number in range(first, mechanism.steps):
        generator = sampling.step_generator(streams.coins, number)
        for length, batch, is_padding in problem.chunks(mechanism.sample(streams, number)):
            if problem.coins:
                words = generator.integers(2**32, size=(len(is_padding), 2), dtype=np.uint32)
                batch = {**batch, problem.coins: words}
            yield length, *problem.placed(batch, is_padding)
        yield None
