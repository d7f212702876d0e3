"""Amounts on a command line that have a unit."""

from absl import flags

from memarc.privacy import ways


def bytes_of(flag: flags.FlagHolder[str | None]) -> int | None:
    """The bytes that a flag says, such as 16GiB; None if it is not given.

    Raises:
      ValueError: If it says no bytes.
    """
    if flag.value is None:
        return None
    found = ways.bytes_of(flag.value)
    if not found:
        raise ValueError(f"--{flag.name} is {flag.value!r}; give bytes such as 16GiB or 12GB.")
    return found
