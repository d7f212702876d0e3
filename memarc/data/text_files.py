"""Finds data files, plain or gzip-compressed, and opens their text."""

import codecs
import gzip
import pathlib
import zlib
from collections.abc import Sequence
from typing import TextIO

DAMAGE = (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error)
"""What reading a file raises whose bytes are not in its encoding, or not whole gzip data."""


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


def open_text(path: pathlib.Path, *, newline: str, encoding: str = "utf-8") -> TextIO:
    """Opens a text for reading, decompressed if its name ends in ".gz".

    The mark that some programs write before a UTF-8 text is left out.

    Args:
      path: From ``find``.
      newline: What ends a line, as ``open`` takes it.
      encoding: As Python names it.

    Returns:
      The open file. Reading raises one of ``DAMAGE`` where the bytes are bad.

    Raises:
      ValueError: If the file is UTF-16 and ``encoding`` says otherwise.
    """
    _check_wide(path, encoding)
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=encoding, newline=newline)
    return path.open(encoding=encoding, newline=newline)


def listed(lines: Sequence[int | str]) -> str:
    """Numbers of lines for a message: five, and how many more there are.

    >>> listed(range(2, 9))
    '2, 3, 4, 5, 6 and 2 more'
    """
    more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
    return f"{', '.join(map(str, lines[:5]))}{more}"


def likewise(lines: Sequence[int]) -> str:
    """What a message about one line adds where others are broken, too; nothing without any."""
    return f" (broken as well: line {listed(lines)})" if lines else ""


def damage(path: pathlib.Path, error: Exception, line: int) -> str:
    """Tells of one of ``DAMAGE``, and quotes nothing of the file, as the error itself may.

    Args:
      path: The file.
      error: What reading raised.
      line: The first line that was not read.
    """
    if isinstance(error, UnicodeDecodeError):
        line = _first_bad_line(path, error.encoding) or line
        return (
            f"{path} is damaged from line {line} on (not {error.encoding}); fetch it again, or "
            "state its encoding."
        )
    return f"{path} is damaged from line {line} on (not whole gzip data); fetch it again."


def _check_wide(path: pathlib.Path, encoding: str) -> None:
    """Raises ValueError for a file that is UTF-16 and is said to be something else."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            begin = file.read(64)
        except DAMAGE:  # Whoever reads on will tell.
            return
    is_wide = begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in begin
    if is_wide and not codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        raise ValueError(
            f"{path} is UTF-16, as Windows programs write it, and encoding is {encoding!r}; save "
            "the file as UTF-8, or, if it is one of your own, set data.encoding to 'utf-16'."
        )


def _first_bad_line(path: pathlib.Path, encoding: str) -> int | None:
    """The number of the line that holds the first bytes that are not in an encoding."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        return 1 + content[: error.start].decode(encoding).count("\n")
    return None
