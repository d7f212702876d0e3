"""Runs commands in processes forked from one that has imported everything.

A command's imports take longer than most commands do. The server is forked by the standard library
(`multiprocessing`'s "forkserver"), one for each process of pytest; no backend of JAX is up in it.
"""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(  # Not the commands: they define their flags when they are run.
    ["memarc.runs.audit", "memarc.runs.account", "memarc.measure.step", "memarc.report.plots"]
)


def run(
    module: str,
    *arguments: object,
    cwd: str | os.PathLike[str] = ROOT,
    env: Mapping[str, str] | None = None,
    path: Sequence[str | os.PathLike[str]] = (),
) -> subprocess.CompletedProcess[str]:
    """Does as ``python -m module arguments`` in a folder would.

    Args:
      module: To be run as ``__main__``.
      *arguments: Of its command line.
      cwd: The folder.
      env: What is to be set beside the environment; what is read at import is not seen.
      path: Folders in which modules that are not yet imported are sought first.

    Returns:
      Exit status, stdout and stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = (pathlib.Path(folder, name) for name in ("out", "err"))
        line = [module, *map(str, arguments)]
        process = _SERVER.Process(
            target=_run,
            args=(line, str(cwd), dict(env or {}), [*map(str, path), str(cwd)], str(out), str(err)),
        )
        process.start()
        process.join()
        return subprocess.CompletedProcess(
            line, process.exitcode or 0, out.read_text(), err.read_text()
        )


def _run(
    line: list[str], cwd: str, env: dict[str, str], path: list[str], out: str, err: str
) -> None:
    """Runs a module in this process, whose output goes to files."""
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
    os.chdir(cwd)
    os.environ.update(env)
    sys.argv = [f"-m {line[0]}", *line[1:]]
    sys.path[:0] = path
    runpy.run_module(line[0], run_name="__main__", alter_sys=True)
