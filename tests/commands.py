"""Runs commands in processes forked from one that has imported everything.

A command's imports take longer than most commands do. The server is forked by the standard library
(`multiprocessing`'s "forkserver"), one for each process of pytest; no backend of JAX is up in it.
"""

import dataclasses
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess

ROOT = pathlib.Path(__file__).resolve().parents[1]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(  # Not the commands: they define their flags when they are run.
    ["tests.imported"]
)


@dataclasses.dataclass(frozen=True)
class Started:
    """A command that goes on beside the test.

    Attributes:
      line: The module, and its arguments.
      process: Runs it; its ``pid`` takes signals.
      folder: Where its output is written.
    """

    line: list[str]
    process: ForkServerProcess
    folder: tempfile.TemporaryDirectory[str]

    def ended(self, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
        """Waits for the end, and gives exit status, stdout and stderr.

        Raises:
          TimeoutError: If it goes on after so many seconds; it is killed.
        """
        self.process.join(seconds)
        if (status := self.process.exitcode) is None:
            self.process.kill()
            raise TimeoutError(f"{self.line} goes on after {seconds} s.")
        out, err = (pathlib.Path(self.folder.name, name).read_text() for name in ("out", "err"))
        self.folder.cleanup()
        return subprocess.CompletedProcess(self.line, status, out, err)


def start(
    module: str,
    *arguments: object,
    cwd: str | os.PathLike[str] = ROOT,
    env: Mapping[str, str] | None = None,
    path: Sequence[str | os.PathLike[str]] = (),
) -> Started:
    """Does as ``python -m module arguments`` in a folder would, and does not wait.

    Args:
      module: To be run as ``__main__``.
      *arguments: Of its command line.
      cwd: The folder.
      env: What is to be set beside the environment; what is read at import is not seen.
      path: Folders in which modules that are not yet imported are sought first.
    """
    folder = tempfile.TemporaryDirectory()
    out, err = (str(pathlib.Path(folder.name, name)) for name in ("out", "err"))
    line = [module, *map(str, arguments)]
    process = _SERVER.Process(
        target=_run,
        args=(line, str(cwd), dict(env or {}), [*map(str, path), str(cwd)], out, err),
    )
    process.start()
    return Started(line, process, folder)


def run(
    module: str,
    *arguments: object,
    cwd: str | os.PathLike[str] = ROOT,
    env: Mapping[str, str] | None = None,
    path: Sequence[str | os.PathLike[str]] = (),
) -> subprocess.CompletedProcess[str]:
    """Does as `start`, and waits for exit status, stdout and stderr."""
    return start(module, *arguments, cwd=cwd, env=env, path=path).ended()


def _run(
    line: list[str], cwd: str, env: dict[str, str], path: list[str], out: str, err: str
) -> None:
    """Runs a module in this process, whose output goes to files."""
    for number, place in ((1, out), (2, err)):
        file = os.open(place, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
    os.chdir(cwd)
    os.environ.update(env)
    sys.argv = [f"-m {line[0]}", *line[1:]]
    sys.path[:0] = path
    runpy.run_module(line[0], run_name="__main__", alter_sys=True)
