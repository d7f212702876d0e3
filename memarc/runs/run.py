"""Makes runs: trains each in its folder, releases its parameters, scores it and records it."""

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from flax import traverse_util

from memarc.data.load import EvalSet
from memarc.evaluation import predicted
from memarc.report import records
from memarc.runs.assemble import assemble
from memarc.runs.job import JOBS
from memarc.runs.parse import parse
from memarc.runs.parts import Run
from memarc.runs.record import make_record
from memarc.runs.settings import Settings
from memarc.runs.train import CHECKPOINTS, make_problem, open_ledger, train
from memarc.training import export, processes
from memarc.training.checkpoint import differing_fields
from memarc.training.interrupt import stop_requests
from memarc.typing import Params


def run_all(
    config: Mapping[str, Any], workdir: Path, only: Sequence[str] | None = None
) -> list[records.Record]:
    """Makes every run of a config; all are checked before the first is trained.

    A config without ``runs`` writes to ``workdir``, one with runs to ``workdir/NAME`` each. A run
    that was stopped goes on from its last checkpoint; a finished one is not made again.

    Args:
      config: Plain values (`memarc.runs.parse.parse`).
      workdir: The folder to write to; made if absent.
      only: Names of the runs that are wanted; None means all.

    Raises:
      ValueError: For a mistake in the config, the data or the weights, or a folder of other runs.
      memarc.runs.train.Stopped: If a signal ended a run early; it is saved.
    """
    chosen = processes.everywhere(lambda: parse(config, only))
    processes.check_equal(_facts(chosen, workdir), are_secret=False)
    folders = folders_of(config, chosen, workdir)
    prepared = processes.everywhere(
        lambda: [
            _finished(settings, folder) or assemble(settings)
            for settings, folder in zip(chosen, folders, strict=True)
        ]
    )
    seen = {
        f"{settings.name}: its train rows, or whether it is finished": _seen(item)
        for settings, item in zip(chosen, prepared, strict=True)
    }
    processes.check_equal(seen, are_secret=True)
    made = []
    with stop_requests() as should_stop:
        for item, folder in zip(prepared, folders, strict=True):
            if isinstance(item, records.Record):
                made.append(_given_back(item, folder))
            else:
                made.append(run_one(item, folder, should_stop))
    return made


def finished(
    config: Mapping[str, Any], workdir: Path, only: Sequence[str] | None = None
) -> tuple[list[records.Record], list[str]]:
    """The records of a config's runs that are finished, and the names of the others.

    Raises:
      ValueError: For a mistake in the config, or a folder that holds a run of another config.
    """
    chosen = parse(config, only)
    folders = folders_of(config, chosen, workdir)
    found = {x.name: _finished(x, y) for x, y in zip(chosen, folders, strict=True)}
    there = [record for record in found.values() if record is not None]
    return there, [name for name, record in found.items() if record is None]


def folders_of(config: Mapping[str, Any], chosen: Sequence[Settings], workdir: Path) -> list[Path]:
    """The folder of each run: ``workdir``, or one within it of a config with several."""
    several = bool(config["runs"] or config["more"] or config["repeats"] > 1)
    return [workdir / settings.name if several else workdir for settings in chosen]


def make_one(run: Run, folder: Path, should_stop: Callable[[], bool]) -> records.Record:
    """Makes one run unless its folder holds it, finished (`run_one`).

    Raises:
      ValueError: If the folder holds another run, or its ledger is of other rows. (A ledger whose
        rows have a name does not compare them, nor does any compare their order.)
    """
    record = processes.everywhere(lambda: _finished(run.settings, folder))
    if record is None:
        return run_one(run, folder, should_stop)
    processes.of_first(lambda: open_ledger(run, folder).close())  # It refuses other rows.
    return _given_back(record, folder)


def run_one(run: Run, folder: Path, should_stop: Callable[[], bool]) -> records.Record:
    """Trains, releases, scores and records one run in one folder.

    Raises:
      ValueError: If the folder or the ledger is of another run, or the budget is spent.
      memarc.runs.train.Stopped: If ``should_stop`` ended training early; it is saved.
    """
    job = JOBS[run.settings.kind]
    score = functools.partial(_scores, run)
    trained = train(run, folder, make_problem, score, should_stop)
    trainable, frozen = trained.state.trainable, trained.problem.frozen
    # First of all, so that nothing that goes wrong later costs what the budget has paid for.
    released, drawn = processes.whole(trainable), processes.whole(frozen["drawn"])
    processes.of_first(lambda: export.save(folder, released, drawn))
    with closing(trained.log) as log:
        found = job.predict(run, trainable, frozen, run.splits.evals, folder)
        scores = predicted.scores(found)
        log.event("scores", **scores)
    record = make_record(run, trained, scores, predicted.standard_errors(found))
    processes.of_first(lambda: str(records.write(record, folder)))
    trained.checkpoints.remove()  # They hold the noise key: nothing secret stays.
    return record


def _scores(
    run: Run, trainable: Params, frozen: Params, evals: Mapping[str, EvalSet]
) -> dict[str, float]:
    """Scores evaluation sets while a run trains."""
    found = JOBS[run.settings.kind].predict(run, trainable, frozen, evals, None)
    return predicted.scores(found)


def _facts(chosen: Sequence[Settings], workdir: Path) -> dict[str, Any]:
    """What must be equal in all processes of a run."""
    configs = {
        f"{settings.name}: {'.'.join(path)}": value
        for settings in chosen
        for path, value in traverse_util.flatten_dict(settings.plain).items()
    }
    about = {
        "code": records.code_digest(),
        "versions": records.versions(),
        "workdir": str(workdir.absolute()),
    }
    return about | configs


def _seen(item: records.Record | Run) -> str:
    """What one process saw of a run: that it is finished, or a hash of its train rows."""
    return "finished" if isinstance(item, records.Record) else item.splits.train.fingerprint()


def _given_back(record: records.Record, folder: Path) -> records.Record:
    """The record of a finished run.

    A process that died between its record and its end left the noise key: it is removed here.
    """
    if processes.is_first():
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return record


def _finished(settings: Settings, folder: Path) -> records.Record | None:
    """The record of a run that was made before; refuses a folder of another config."""
    path = folder / records.FILE_NAME
    if not path.exists():
        return None
    record = records.read(path)
    differing = differing_fields(record.config, settings.plain)
    if differing:
        raise ValueError(
            f"{path} is the record of another config; these differ: {'; '.join(differing)}. Use "
            "another --workdir, or the config that it was made with."
        )
    return record
