"""Writes JSON lines: each line is printed at once, the file appears only when all are there."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from memarc import paths
from memarc.report import records


def as_text(line: dict[str, Any]) -> str:
    """Writes a line as JSON, with versions and commit added."""
    common = {"versions": records.versions(), "commit": records.commit(Path(__file__).parent)}
    return json.dumps(records.encode({**line, **common}))


@contextlib.contextmanager
def writer(output: str | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives a function that prints a line as `as_text` writes it.

    Args:
      output: The file that the lines replace at the end, or None for no file. Until then they are
        in a file of the same name and ``.partial``.

    Raises:
      ValueError: If the file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        file, partial = None, paths.place(f"{output}.partial")
        if output:
            try:
                file = stack.enter_context(partial.open("w", encoding="utf-8"))
            except OSError as error:
                raise ValueError(f"--output={output} cannot be written: {error}") from error

        def write(line: dict[str, Any]) -> None:
            text = as_text(line)
            print(text, flush=True)
            if file:
                print(text, file=file, flush=True)

        yield write
        if output:
            os.replace(partial, paths.place(output))
