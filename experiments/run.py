"""Trains, evaluates and records every run of a config.

    python -m experiments.run --config=configs/quickstart.py --workdir=/tmp/quickstart

A config without ``runs`` writes to WORKDIR, one with runs to WORKDIR/NAME each. A run that was
stopped goes on from its last checkpoint; a finished one is not run again.
"""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
from absl import flags
from flax import traverse_util
from ml_collections import config_dict

from experiments import cli, joining
from memarc.ops.compiled import compiled_bytes
from memarc.report import memory, records, tables
from memarc.runs import assemble
from memarc.runs import settings as settings_lib
from memarc.runs import train as training
from memarc.training import export, processes
from memarc.training.interrupt import stop_requests

_ONLY = flags.DEFINE_list("only", None, "Names of the config's runs to make; all by default.")


def main() -> int:
    """Runs the config of the command line and prints one table."""
    joining.join()
    workdir = Path(cli.workdir())
    try:
        made = run_all(cli.config(), workdir, _ONLY.value)
    except training.Stopped as stopped:
        print(f"{stopped} The same command goes on from there.")
        return training.STOPPED
    except jax.errors.JaxRuntimeError as error:
        joining.leave(error)
        raise
    if processes.is_first():
        print(f"\n{tables.table(made, tables.QUICK, 'terminal')}\n\nRecords: {workdir}")
    return 0


def run_all(
    config: config_dict.ConfigDict, workdir: Path, only: list[str] | None = None
) -> list[records.Record]:
    """Makes every run of a config; all are checked before the first is trained.

    Raises:
      ValueError: For a mistake in the config, the data or the weights, or a folder of other runs.
      training.Stopped: If a signal ended a run early; it is saved.
    """
    chosen = processes.everywhere(lambda: settings_lib.parse(config, only))
    processes.check_equal(_facts(chosen, workdir), are_secret=False)
    several = bool(config.to_dict()["runs"] or config.to_dict()["more"])
    folders = [workdir / settings.name if several else workdir for settings in chosen]
    prepared = processes.everywhere(
        lambda: [
            _finished(settings, folder) or assemble.assemble(settings)
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
                # A process that died between its record and its end left the noise key.
                if processes.is_first():
                    shutil.rmtree(folder / training.CHECKPOINTS, ignore_errors=True)
                made.append(item)
            else:
                made.append(run_one(item, folder, should_stop))
    return made


def run_one(run: assemble.Run, folder: Path, should_stop) -> records.Record:
    """Trains, evaluates and records one run in one folder."""
    trained = training.train(run, folder, training.make_problem, should_stop)
    # First of all, so that nothing that goes wrong later costs what the budget has paid for.
    released = processes.whole(trained.state.trainable)
    processes.of_first(lambda: export.save(folder, released, {}))
    with closing(trained.log) as log:
        found = run.job.evaluate(run, trained.state.trainable, trained.problem.frozen, folder)
        log.event("scores", **found)
    record = _record(run, trained, found)
    processes.of_first(lambda: str(records.write(record, folder)))
    trained.checkpoints.remove()  # They hold the noise key: nothing secret stays.
    return record


def _facts(chosen, workdir) -> dict[str, Any]:
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


def _seen(item) -> str:
    """What one process saw of a run: that it is finished, or a hash of its train rows."""
    return "finished" if isinstance(item, records.Record) else item.splits.train.fingerprint()


def _finished(settings, folder) -> records.Record | None:
    """The record of a run that was made before; refuses a folder of another config."""
    path = folder / records.FILE_NAME
    if not path.exists():
        return None
    record = records.read(path)
    if record.config != settings.plain:
        differing = [
            key for key, value in settings.plain.items() if record.config.get(key) != value
        ]
        raise ValueError(
            f"{path} is the record of another config; these parts differ: {differing}. Use "
            "another --workdir."
        )
    return record


def _record(run, trained, found) -> records.Record:
    """What the run promised and did."""
    settings, mechanism, backbone = run.settings, run.mechanism, run.backbone
    problem, seconds = trained.problem, trained.seconds
    spent = mechanism.spent(mechanism.steps)
    longest = max(problem.shapes)
    trainable, frozen = (_count(tree) for tree in (trained.state.trainable, problem.frozen))
    per_example = memory.backward_bytes_per_example(
        problem.loss_fn,
        problem.precompute,
        trained.state.trainable,
        problem.frozen,
        problem.shapes[longest],
    )
    return records.Record(
        name=settings.name,
        method=settings.method,
        task=settings.task,
        backbone=f"{backbone.kind}, {backbone.layers} layers, width {backbone.width}, "
        f"{settings.model.dtype}, {run.provenance}",
        engine=trained.engine,
        epsilon=spent.epsilon,
        epsilon_pld=spent.epsilon_pld,
        delta=mechanism.delta,
        clip_norm=mechanism.clipping.clip_norm,
        clipping=mechanism.clipping.rule,
        noise_multiplier=mechanism.noise_multiplier,
        sampling_rate=mechanism.sampling_rate,
        expected_batch_size=mechanism.divisor,
        steps=mechanism.steps,
        neighbouring=mechanism.neighbouring,
        unit=mechanism.unit,
        reproducible_noise="fixed seed: not private against who knows it"
        if settings.seed is not None
        else False,
        trainable_parameters=trainable,
        total_parameters=trainable + frozen,
        scores=found,
        seconds=round(seconds, 2),
        compile_seconds=round(trained.programs.compile_seconds, 2),
        examples_per_second=round(mechanism.steps * mechanism.divisor / max(seconds, 1e-9), 1),
        memory={
            "backward_bytes_per_example": per_example,
            "backward_bytes": per_example * settings.privacy.microbatch_size,
            **compiled_bytes(trained.programs.accumulate[longest]),
        },
        device=records.device(),
        versions=records.versions(),
        commit=records.commit(Path(__file__).parent),
        config=settings.plain,
        accountant=spent.accountant,
        ledger=trained.together,
    )


def _count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
    cli.run(main)
