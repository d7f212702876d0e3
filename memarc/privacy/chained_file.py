"""A file of JSON lines that only grows: each line holds a checksum of all lines before it.

An edited or shortened history does not fit its checksums, but for one thing: whole lines cut off
its end leave a history that is whole. Who reads it must know from elsewhere how much there was.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from memarc import paths

Line = dict[str, Any]
"""A JSON object, without its checksum."""


class ChainedFile:
    """The lines of a file that this process alone may write, and its owner alone may read."""

    def __init__(self, path: Path) -> None:
        """Opens a file, made if absent, and locks it; a torn last line is cut off.

        A line is torn if the process died while it was written.

        Args:
          path: The file; its folder is there.

        Raises:
          ValueError: If the history is damaged, or another process holds the file.
        """
        paths.make_private(path)
        self.path = path
        self._file = path.open("a+b", buffering=0)
        try:
            self._lock()
            self.lines, self._chain = _read(self._file, path, mend=True)
        except BaseException:
            self._file.close()
            raise

    def append(self, line: Line) -> None:
        """Writes a line and returns when it is on disk; one that does not fit leaves no trace.

        Raises:
          ValueError: If it cannot be written.
        """
        check = _check(self._chain, line)
        text = canonical({**line, "check": check}) + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, start)
            raise ValueError(
                f"{self.path} cannot be written ({error.strerror}); the step was not made. Make "
                "room and run the same command again: what was saved is kept."
            ) from error
        if not self.lines:
            _sync_folder(self.path.parent)
        self.lines.append(line)
        self._chain = check

    def close(self) -> None:
        """Unlocks the file."""
        self._file.close()

    def _lock(self) -> None:
        """Takes the file for this process; raises ValueError if another one holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"{self.path} is in use by another run; wait for it, or give another ledger.folder."
            ) from error


def read(path: Path) -> list[Line]:
    """Reads all whole lines of a file; nothing is changed.

    Raises:
      ValueError: If the history is damaged.
    """
    with path.open("rb") as file:
        return _read(file, path, mend=False)[0]


def canonical(value: Any) -> bytes:
    """The one way in which a JSON value is written for hashing."""
    return json.dumps(value, sort_keys=True).encode()


def _check(chain: str, line: Line) -> str:
    """The checksum of a line that follows others."""
    return hashlib.sha256(chain.encode() + canonical(line)).hexdigest()


def _read(file: Any, path: Path, *, mend: bool) -> tuple[list[Line], str]:
    """Gives all whole lines, checked, and the last checksum; ``mend`` cuts a torn last line off."""
    file.seek(0)
    whole, newline, torn = file.read().rpartition(b"\n")
    if torn and mend:
        os.truncate(path, len(whole) + len(newline))
    lines, chain = [], ""
    for number, text in enumerate(whole.splitlines() if newline else [], 1):
        try:
            line = json.loads(text)
            check = line.pop("check")
        except (ValueError, KeyError, AttributeError):
            line, check = {}, None
        chain = _check(chain, line)
        if check != chain:
            raise ValueError(
                f"{path}, line {number}: the history was changed or damaged there. What was spent "
                "is unknown; restore the whole file."
            )
        lines.append(line)
    return lines, chain


def _sync_folder(folder: Path) -> None:
    """Makes a new file's name survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
