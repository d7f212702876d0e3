"""Trains, evaluates and records every run of a config.

    python -m experiments.run --config=configs/quickstart.py --workdir=/tmp/quickstart

A config of one run writes to WORKDIR, one of several to WORKDIR/NAME each. A run that was stopped
goes on from its last checkpoint; a finished one is not run again. --config.repeats=3 makes each
three times, NAME, NAME-r2 and NAME-r3: on private rows these are three releases. With --show the
runs' whole configs are printed, and nothing is run. With --inspect_private counts of the rows are
printed, which are not private, and nothing is run.
"""

import json

import jax
from absl import flags

from experiments import cli, joining
from memarc.data import load, look
from memarc.runs import fields, summary
from memarc.runs.parse import parse
from memarc.runs.run import folders_of, run_all
from memarc.runs.train import Stopped
from memarc.training import processes

_ONLY = flags.DEFINE_list("only", None, "Names of the config's runs to make; all by default.")

_SHOW = flags.DEFINE_bool("show", False, "Print what would be run, as JSON, and run nothing.")

_INSPECT = flags.DEFINE_bool(
    "inspect_private", False, "Print counts of private rows (they are not private), and run none."
)


def main() -> int:
    """Runs the config of the command line and prints one table."""
    if _INSPECT.value:
        print(look.NOT_PRIVATE)
        for run in parse(cli.config(), _ONLY.value):
            print(json.dumps({"name": run.name, **look.facts(load.load(run.task, run.data))}))
        return 0
    if _SHOW.value:
        shown = {run.name: run.plain for run in parse(cli.config(), _ONLY.value)}
        print(json.dumps(shown, indent=2))
        return 0
    joining.join()
    workdir = cli.workdir()
    try:
        made = run_all(cli.config(), workdir, _ONLY.value)
    except Stopped as stopped:
        print(f"{stopped} The same command goes on from there.")
        return cli.STOPPED
    except jax.errors.JaxRuntimeError as error:
        joining.leave(error)
        raise
    if processes.is_first():
        folders = folders_of(cli.config(), parse(cli.config(), _ONLY.value), workdir)
        print(f"\n{summary.finish(dict(zip(folders, made, strict=True)))}")
    return 0


if __name__ == "__main__":
    cli.run(main, fields.text)
