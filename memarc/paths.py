"""Makes places out of what users write, and places that their owner alone may read."""

import contextlib
import logging
import os
import stat
from pathlib import Path

_LOGGER = logging.getLogger(__name__)


def expanded(name: str | os.PathLike[str]) -> str:
    """A name of a place, or of something on a hub, with a leading "~" made the home folder."""
    return os.path.expanduser(name)


def place(name: str | os.PathLike[str]) -> Path:
    """The place that a flag or a field of a config names, as it is seen from here."""
    return Path(expanded(name))


def identity(name: str | os.PathLike[str]) -> Path:
    """The one spelling of a place: absolute, without links, whatever folder one is in."""
    return place(name).resolve()


def make_private_folder(folder: Path) -> None:
    """Makes a folder, if absent, that its owner alone may enter, whatever the umask.

    What lies in it is as private, whatever modes it has. Parents are made as usual.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _restrict(folder, 0o700)


def make_private(file: Path) -> None:
    """Makes a file, if absent, that its owner alone may read and write, whatever the umask."""
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    _restrict(file, 0o600)


def _restrict(path: Path, mode: int) -> None:
    """Takes away what others may do; says so where a file system does not keep that."""
    with contextlib.suppress(PermissionError):  # Another's: what others may do is told below.
        os.chmod(path, mode)
    found = stat.S_IMODE(path.stat().st_mode)
    if found & 0o077:
        _LOGGER.warning(
            "%s holds secrets and has mode %o: its file system, or its owner, lets others read "
            "it. Put it where %o holds.",
            path,
            found,
            mode,
        )
