"""Trains one assembled run in a folder: checkpoints, ledger and log included."""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import jax

from experiments import assemble
from memarc.data.dataset import padded_chunks
from memarc.models.tuning import COINS
from memarc.privacy import auto, sampling
from memarc.privacy.ledger import Budget, Ledger
from memarc.privacy.noise import key_from_words
from memarc.training import loop, optimizer, sharding, step
from memarc.training.checkpoint import Checkpoints, Identity
from memarc.training.log import Log
from memarc.typing import Params

STOPPED = 143
"""Exit status after SIGTERM, as shells report it."""


class Stopped(Exception):
    """A run was stopped by a signal and saved."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run after its last update.

    Attributes:
      state: The last state.
      problem: What was trained.
      programs: Compiled.
      engine: Of the clipped sums, chosen where the config says "auto".
      seconds: Of training.
      together: Runs, epsilon and delta of the ledger, this run included.
      checkpoints: Still there, and secret.
      log: Open.
    """

    state: step.TrainState
    problem: loop.Problem
    programs: loop.Programs
    engine: str
    seconds: float
    together: dict[str, float]
    checkpoints: Checkpoints
    log: Log


def train(
    run: assemble.Run,
    folder: Path,
    make_problem: Callable[[assemble.Run, Params, sampling.Streams], loop.Problem],
    should_stop: Callable[[], bool],
) -> Trained:
    """Makes all updates of a run, from its last checkpoint on, and charges each to its ledger.

    Args:
      run: What to train.
      folder: For log, checkpoints and, unless the run shares one, the ledger; made if absent.
      make_problem: ``(run, frozen, streams) -> problem``.
      should_stop: Asked after every update.

    Returns:
      The end; log and checkpoints are still open.

    Raises:
      ValueError: If the folder or the ledger is of another run, or the budget is spent.
      Stopped: If ``should_stop`` ended the run early; it is saved.
    """
    settings, mechanism = run.settings, run.mechanism
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = _open_checkpoints(run, folder)
    entropy = checkpoints.entropy()
    streams = sampling.streams(entropy)
    trainable, frozen = run.model.init(key_from_words(streams.initialisation), run.params)
    placement = run.placement
    frozen = placement.place_frozen(frozen) if placement else jax.device_put(frozen)
    run.model.check_start(trainable, frozen)
    privatize = mechanism.gradient_transform(key_from_words(streams.noise))
    optimize = optimizer.build(settings.optimizer, mechanism.steps)
    state = checkpoints.restore(step.init_state(trainable, privatize, optimize))
    state = placement.replicate(state) if placement else state
    problem = dataclasses.replace(make_problem(run, frozen, streams), placement=placement)
    gradient = _gradient_settings(run, problem, state)
    programs = loop.compile_programs(problem, state, gradient, privatize, optimize)
    log = _open_log(run, folder, state)
    with closing(open_ledger(run, folder)) as ledger, ExitStack() as if_it_fails:
        if_it_fails.callback(checkpoints.close)
        if_it_fails.callback(log.close)
        ledger.begin(mechanism, entropy=entropy, config=settings.of_training, done=int(state.step))
        state = loop.train(
            problem,
            programs,
            state,
            mechanism,
            streams,
            checkpoints=checkpoints,
            log=log,
            schedule=optimizer.learning_rate(settings.optimizer, mechanism.steps),
            charge=ledger.charge,
            should_stop=should_stop,
        )
        if int(state.step) < mechanism.steps:
            raise Stopped(
                f"Stopped {settings.name} after step {int(state.step)}/{mechanism.steps}."
            )
        if_it_fails.pop_all()
        seconds = log.total_seconds()
        together = {
            "runs": len(ledger.entries),
            "epsilon": ledger.spent().epsilon,
            "delta": ledger.budget.delta,
        }
    return Trained(state, problem, programs, gradient.engine, seconds, together, checkpoints, log)


def _open_checkpoints(run, folder) -> Checkpoints:
    settings = run.settings
    return Checkpoints(
        folder / "checkpoints",
        identity=Identity(settings.of_training, run.splits.train.fingerprint()),
        entropy=sampling.entropy_from(settings.seed)[0],
        every=settings.training.checkpoint_every,
        keep=settings.training.keep_checkpoints,
    )


def _gradient_settings(run, problem, state) -> step.GradientSettings:
    """How clipped sums are computed, the engine chosen where the config says "auto"."""
    privacy, clipping = run.settings.privacy, run.mechanism.clipping
    most = sharding.rows_of_device(problem.placement, privacy.physical_batch_size)
    engine, rows = privacy.engine, min(privacy.microbatch_size, most)
    if engine == auto.AUTO:
        engine = loop.choose_engine(problem, state.trainable, clipping, rows)
    return step.GradientSettings(clipping, engine, rows)


def _open_log(run, folder, state) -> Log:
    training = run.settings.training
    return Log(
        folder / "log.jsonl",
        title=run.settings.name,
        first=int(state.step),
        steps=run.mechanism.steps,
        every=training.log_every,
        tensorboard=training.tensorboard,
    )


def open_ledger(run: assemble.Run, folder: Path) -> Ledger:
    """The ledger in which the run spends: its own, or the one it shares."""
    choice = run.settings.ledger
    data = run.splits.train.unordered_fingerprint()
    if choice.folder is None:
        own = Budget(run.settings.privacy.epsilon, run.mechanism.delta)
        return Ledger(folder, data=data, budget=own)
    return Ledger(Path(choice.folder), data=data, budget=choice.budget)


def make_problem(run, frozen, streams) -> loop.Problem:
    """The run as the training loop sees it."""
    del streams
    train, buckets = run.splits.train, run.splits.buckets
    rows = run.settings.privacy.physical_batch_size
    coins = {COINS: jax.ShapeDtypeStruct((rows, 2), "uint32")} if run.model.needs_coins else {}
    return loop.Problem(
        loss_fn=run.model.loss,
        precompute=run.model.precompute,
        frozen=frozen,
        chunks=lambda indices: padded_chunks(indices, train, buckets, rows),
        shapes={length: {**run.job.batch(run, rows, length), **coins} for length in buckets},
        coins=COINS if run.model.needs_coins else None,
    )
