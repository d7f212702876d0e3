"""Finds data files, plain or gzip-compressed, and opens their text."""

import gzip
import pathlib
import zlib
from typing import TextIO

DAMAGE = (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error)
"""What reading a file raises whose bytes are neither UTF-8 nor whole gzip data."""


def find(folder: pathlib.Path, file_name: str, *, task: str, advice: str) -> pathlib.Path:
    """Finds a file of a task.

    Args:
      folder: The task's folder.
      file_name: With or without ".gz"; either finds the compressed file, a plain one goes first.
      task: The task's name, for the message.
      advice: What to do where there is no such file; a sentence for the message.

    Returns:
      The path of a file that exists.

    Raises:
      ValueError: If there is none.
    """
    names = [file_name] if file_name.endswith(".gz") else [file_name, f"{file_name}.gz"]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    state = "has no such file" if folder.is_dir() else "does not exist"
    raise ValueError(
        f"Looked for {' or '.join(names)} of task {task} in {folder}, which {state}. {advice}"
    )


def open_text(path: pathlib.Path, *, newline: str) -> TextIO:
    """Opens a UTF-8 text for reading, decompressed if its name ends in ".gz".

    The mark that some programs write before a UTF-8 text is left out.

    Args:
      path: From ``find``.
      newline: What ends a line, as ``open`` takes it.

    Returns:
      The open file. Reading raises one of ``DAMAGE`` where the bytes are bad.
    """
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=newline)
    return path.open(encoding="utf-8-sig", newline=newline)
