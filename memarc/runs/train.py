"""Trains one assembled run in a folder: checkpoints, ledger and log included.

Axes: B rows of a batch, T tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import jax

from memarc import paths
from memarc.batches import COINS
from memarc.data import own_rows, public_text
from memarc.data.dataset import padded_chunks
from memarc.privacy import apart, ledger_entries, sampling, zeroth_order
from memarc.privacy.engines import ROW_BY_ROW
from memarc.privacy.ledger import Ledger
from memarc.privacy.ledger_entries import Budget
from memarc.report import targets
from memarc.runs import inputs, way
from memarc.runs.parts import Run
from memarc.runs.rehearsal import Score, rehearse
from memarc.training import engine, loop, optimizer, processes, step
from memarc.training.checkpoint import Checkpoints, Identity
from memarc.training.log import Log, NoLog
from memarc.typing import Params

CHECKPOINTS = "checkpoints"
"""The folder within a run's that holds secrets; it is gone when the run ends."""

MakeProblem = Callable[[Run, Params, sampling.Streams], loop.Problem]
"""``(run, frozen, streams) -> problem``."""


class Stopped(Exception):
    """A run was stopped by a signal and saved."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run after its last update.

    Attributes:
      state: The last state.
      problem: What was trained.
      programs: The compiled programs.
      gradient: How clipped sums were computed, chosen where the config says "auto".
      remat: What the backward pass kept of the backbone.
      seconds: How long training took.
      together: Runs, epsilon and delta of the ledger, this run included; empty in processes that
        keep none.
      checkpoints: The checkpoints, which are still there, and secret.
      log: The log, which is still open.
    """

    state: step.TrainState
    problem: loop.Problem
    programs: loop.Programs
    gradient: step.GradientSettings
    remat: str
    seconds: float
    together: dict[str, float]
    checkpoints: Checkpoints
    log: Log | NoLog


def train(
    run: Run,
    folder: Path,
    make_problem: MakeProblem,
    score: Score | None,
    should_stop: Callable[[], bool],
) -> Trained:
    """Makes all updates of a run, from its last checkpoint on, and charges each to its ledger.

    Args:
      run: What to train.
      folder: For log, checkpoints and, unless the run shares one, the ledger; made if absent.
      make_problem: ``(run, frozen, streams) -> problem``.
      score: Scores rows, public ones before the first step and while it trains; None never does.
      should_stop: Asked after every update.

    Returns:
      The end; log and checkpoints are still open.

    Raises:
      ValueError: If the folder or the ledger is of another run, or the budget is spent.
      Stopped: If ``should_stop`` ended the run early; it is saved.
    """
    mechanism = run.mechanism
    processes.everywhere(lambda: folder.mkdir(parents=True, exist_ok=True))
    fitted = processes.everywhere(lambda: way.fitted(run))
    given = processes.everywhere(lambda: inputs.of_step(run.settings.model.weights, run.placement))
    given |= way.named(fitted)
    fingerprint = run.splits.train.fingerprint()
    processes.check_equal({"the train rows": fingerprint}, are_secret=True)
    checkpoints = _open_checkpoints(run, folder, given, fingerprint)
    with ExitStack() as always, ExitStack() as if_it_fails:
        if_it_fails.callback(checkpoints.close)
        entropy = processes.everywhere(checkpoints.entropy)
        streams = sampling.streams(entropy)
        state, problem, programs, gradient = _prepare(fitted, checkpoints, streams, make_problem)
        if score and run.splits.evals:
            rehearse(run, score, state.trainable, problem.frozen)
        done = int(state.step)
        _check_equal_starts(done, gradient, fitted.backbone.remat, entropy)
        made_of = given | way.resolved(fitted, gradient)
        made_of["train rows"] = ledger_entries.tie(entropy, fingerprint)
        log = processes.everywhere(lambda: _open_log(run, folder, state))
        if_it_fails.callback(log.close)
        ledger = processes.everywhere(lambda: _begin_ledger(run, folder, entropy, done, made_of))
        if ledger:
            always.callback(ledger.close)
        state = loop.train(
            problem,
            programs,
            state,
            mechanism,
            streams,
            checkpoints=checkpoints,
            log=log,
            schedule=optimizer.learning_rate(run.settings.optimizer, mechanism.steps),
            # The sum of a step needs all processes, so none is noised before it is charged.
            charge=ledger.charge if ledger else lambda number: None,
            watch=functools.partial(_watch, run, score, problem.frozen, log),
            should_stop=lambda: processes.any_of(should_stop()),
        )
        if int(state.step) < mechanism.steps:
            raise Stopped(
                f"Stopped {run.settings.name} after step {int(state.step)}/{mechanism.steps}."
            )
        if_it_fails.pop_all()
        seconds = log.total_seconds()
        together = _together(ledger) if ledger else {}
    remat = fitted.backbone.remat
    return Trained(state, problem, programs, gradient, remat, seconds, together, checkpoints, log)


def _prepare(
    run: Run, checkpoints: Checkpoints, streams: sampling.Streams, make_problem: MakeProblem
) -> tuple[step.TrainState, loop.Problem, loop.Programs, step.GradientSettings]:
    """The state to start from, the problem, its programs, and how they add to a sum."""
    trainable, frozen = run.model.init(streams.initialisation, run.params)
    placement = run.placement
    frozen = placement.place_frozen(frozen) if placement else jax.device_put(frozen)
    privatize = run.mechanism.gradient_transform(streams.noise)
    optimize = optimizer.build(run.settings.optimizer, run.mechanism.steps)
    directions = run.settings.privacy.directions(streams.directions)
    state = step.init_state(trainable, privatize, optimize, directions)
    run.model.check_start(
        placement.replicate(state.trainable) if placement else state.trainable,
        frozen,
        public_text.batch(run.codec, run.settings.data.max_length),
    )
    state = placement.place_state(state) if placement else state
    state = checkpoints.restore(state)
    problem = dataclasses.replace(make_problem(run, frozen, streams), placement=placement)
    own_memory = targets.memory("", jax.local_devices())
    memory = min(map(int, processes.gather(str(own_memory))))
    privacy, clipping = run.settings.privacy, run.mechanism.clipping
    gradient = engine.resolve(problem, state, privacy, clipping, memory)
    _check_apart(problem, state, gradient.engine)
    programs = loop.compile_programs(problem, state, gradient, privatize, optimize)
    return state, problem, programs, gradient


def _check_equal_starts(
    done: int, gradient: step.GradientSettings, remat: str, entropy: int
) -> None:
    """Raises ValueError unless all processes begin at one step, in one way, from one randomness."""
    begun = {"step": done, "engine": gradient.engine, "rows": gradient.microbatch_size}
    begun |= {"remat": remat, "randomness": ledger_entries.name_of(entropy)}
    processes.check_equal(begun, are_secret=False)


def _watch(
    run: Run,
    score: Score | None,
    frozen: Params,
    log: Log | NoLog,
    number: int,
    state: step.TrainState,
) -> None:
    """Scores rows that are public while a run trains; that costs no privacy."""
    every, name = run.settings.training.eval_every, own_rows.VALIDATION
    if score and every and number % every == 0:
        log.scores(number, score(state.trainable, frozen, {name: run.splits.evals[name]}))


def _check_apart(problem: loop.Problem, state: step.TrainState, name: str) -> None:
    """Raises ValueError if examples are coupled where the engine takes several at once."""
    rows = apart.random_rows(problem.shapes[min(problem.shapes)])
    if zeroth_order.row_engine(name) in ROW_BY_ROW:
        apart.check_precompute_apart(problem.precompute, problem.frozen, rows)
    else:
        given = (problem.loss_fn, state.trainable, problem.frozen, rows)
        apart.check_apart(*given, precompute=problem.precompute)


def _open_checkpoints(
    run: Run, folder: Path, given: dict[str, str], fingerprint: str
) -> Checkpoints:
    """The run's checkpoints; their entropy is that of the first process."""
    settings = run.settings
    return Checkpoints(
        folder / CHECKPOINTS,
        identity=Identity(settings.of_training, fingerprint, inputs.of_any_machine(given)),
        entropy=processes.of_first(lambda: sampling.entropy_from(settings.seed)[0]),
        every=settings.training.checkpoint_every,
        keep=settings.training.keep_checkpoints,
    )


def _open_log(run: Run, folder: Path, state: step.TrainState) -> Log | NoLog:
    """The log of the first process; others keep none."""
    training = run.settings.training
    if not processes.is_first():
        return NoLog()
    return Log(
        folder / "log.jsonl",
        title=run.settings.name,
        first=int(state.step),
        steps=run.mechanism.steps,
        every=training.log_every,
        tensorboard=training.tensorboard,
    )


def _begin_ledger(
    run: Run, folder: Path, entropy: int, done: int, given: dict[str, str]
) -> Ledger | None:
    """The ledger, in which the run is begun or goes on; None in all processes but the first."""
    if not processes.is_first():
        return None
    ledger = open_ledger(run, folder)
    try:
        ledger.begin(
            run.mechanism,
            entropy=entropy,
            config=run.settings.of_training,
            done=done,
            inputs=given,
        )
    except BaseException:
        ledger.close()
        raise
    return ledger


def _together(ledger: Ledger) -> dict[str, float]:
    """Runs of a ledger, and what they have spent together."""
    return {
        "runs": len(ledger.entries),
        "epsilon": ledger.spent().epsilon,
        "delta": ledger.budget.delta,
    }


def open_ledger(run: Run, folder: Path) -> Ledger:
    """The ledger in which the run spends: its own, or the one it shares."""
    choice, data = run.settings.ledger, run.settings.data
    unit = data.protects if data.user is None else f"{data.protects} named by {data.user}"
    if choice.folder is None:
        place, budget = folder, Budget(run.settings.privacy.epsilon, run.mechanism.delta)
    else:
        place, budget = paths.identity(choice.folder), choice.budget
    hashed = run.splits.rows_hash
    return Ledger(place, data=hashed, budget=budget, dataset=choice.dataset, unit=unit)


def make_problem(run: Run, frozen: Params, streams: sampling.Streams) -> loop.Problem:
    """The run as the training loop sees it."""
    del streams
    train, buckets = run.splits.train, run.splits.buckets
    rows = run.settings.privacy.physical_batch_size
    return loop.Problem(
        loss_fn=run.model.loss,
        precompute=run.model.precompute,
        frozen=frozen,
        chunks=lambda indices: padded_chunks(indices, train, buckets, rows),
        shapes=run.shapes,
        coins=COINS if run.model.needs_coins else None,
    )
