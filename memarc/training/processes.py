"""Several processes of one run: how they start, and what they tell each other.

Every process runs the same program on the same global arrays. What must be done once (ledger, log,
records) the first does. A mistake that one of them finds before or after training is raised in all,
so that none waits for one that is gone; one that ends a process within a step ends the others as
its death would. What they tell each other goes over the cluster's network as it is.
"""

import faulthandler
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from memarc.typing import PyTree

_Value = TypeVar("_Value")

_LOGGER = logging.getLogger(__name__)

_BLOCK = 1024  # Bytes; messages are filled up to a multiple, so that few programs are compiled.
_GOODBYE_SECONDS = 20  # How long a process that ends waits for the others to end too.


def start(
    coordinator: str | None,
    count: int | None,
    number: int | None,
    *,
    connect_seconds: int,
    heartbeat_seconds: int,
) -> None:
    """Joins this process to the others; to be called before any device is looked at.

    Processes talk to each other directly, whatever proxy the environment names.

    Args:
      coordinator: "HOST:PORT" of process 0; None, with the next two, finds SLURM, Open MPI, Cloud
        TPU and GKE by itself.
      count: The number of processes.
      number: The number of this process, from 0.
      connect_seconds: How long to wait for the others.
      heartbeat_seconds: A process that was silent for so long is gone, and all others stop.

    Raises:
      ValueError: If only some of the three are given, they do not go together, no cluster is
        found, or process 0 does not answer. Where another one does not come, JAX aborts.
    """
    place = _checked(coordinator, count, number)
    if place and number:
        _await(place, connect_seconds)
    # The runtime ends a process by abort, and says why; where Python stood then is only noise.
    faulthandler.disable()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with _without_proxy():
            jax.distributed.initialize(
                coordinator,
                count,
                number,
                initialization_timeout=connect_seconds,
                heartbeat_timeout_seconds=heartbeat_seconds,
                shutdown_timeout_seconds=_GOODBYE_SECONDS,
            )
    except jax.errors.JaxRuntimeError:  # Of the connection.
        raise
    except (
        KeyError
    ) as error:  # JAX reads variables of a cluster without a look at whether they are.
        raise ValueError(
            f"A part of a cluster's variables is there, and {error} is not. Start the processes by "
            "the cluster's own launcher, or give --coordinator_address=HOST:PORT, --num_processes "
            "and --process_id."
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"No cluster was found: {str(error).rstrip('.')}. JAX knows SLURM, Open MPI, Cloud TPU "
            "and GKE; elsewhere give --coordinator_address=HOST:PORT, --num_processes and "
            "--process_id."
        ) from error
    # JAX takes SIGTERM for itself and would keep quiet about it.
    signal.signal(signal.SIGTERM, before)
    _LOGGER.warning(
        "Process %d of %d, %d of %d devices. When one dies, all stop within %d s.",
        jax.process_index(),
        jax.process_count(),
        jax.local_device_count(),
        jax.device_count(),
        heartbeat_seconds,
    )


@contextmanager
def _without_proxy() -> Iterator[None]:
    """Takes variables such as http_proxy away for a while: gRPC would send even localhost there."""
    taken = {name: value for name, value in os.environ.items() if "_proxy" in name.lower()}
    for name in taken:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(taken)


def _checked(
    coordinator: str | None, count: int | None, number: int | None
) -> tuple[str, int] | None:
    """Gives host and port of process 0, if they are given at all; checks all three."""
    given = {"coordinator_address": coordinator, "num_processes": count, "process_id": number}
    absent = [f"--{name}" for name, value in given.items() if value is None]
    if absent and len(absent) < len(given):
        raise ValueError(
            f"{' and '.join(absent)} are missing; give all of --coordinator_address=HOST:PORT, "
            "--num_processes and --process_id, or --distributed alone on a cluster that JAX knows."
        )
    if count is not None and number is not None and not 0 <= number < count:
        raise ValueError(f"--process_id is {number}; give 0 to {count - 1}, one each.")
    if coordinator is not None:
        return _address(coordinator)
    return None


def _address(coordinator: str) -> tuple[str, int]:
    """Splits "HOST:PORT" into host and port."""
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError(f"--coordinator_address is {coordinator!r}; give HOST:PORT of process 0.")
    return host.strip("[]"), int(port)


def _await(place: tuple[str, int], seconds: float) -> None:
    """Returns once process 0 listens; JAX itself would abort without a word of its address."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(place, timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ValueError(
                    f"Process 0 does not answer at {place[0]}:{place[1]} after {seconds} s "
                    f"({error}). Start it, and check that this host reaches it."
                ) from error
            time.sleep(0.2)


def is_first() -> bool:
    """Whether this process does what must be done once."""
    return jax.process_index() == 0


def gather(text: str) -> list[str]:
    """Gives what every process says, in the order of processes; all must call it."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(data)))  # [processes]
    padded = np.zeros(-(-max(int(sizes.max()), 1) // _BLOCK) * _BLOCK, np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)  # [processes, bytes]
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def whole(tree: PyTree) -> PyTree:
    """Gives the NumPy arrays of a tree, whole in every process; all must call it."""

    def one(x: Any) -> np.ndarray:
        is_cut = isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated)
        return multihost_utils.process_allgather(x, tiled=True) if is_cut else np.asarray(x)

    return jax.tree.map(one, tree)


def everywhere(make: Callable[[], _Value]) -> _Value:
    """Calls a function on every process; what one of them raises, all raise.

    Args:
      make: Where it waits for the other processes, none of them may raise before.

    Returns:
      This process's own result.

    Raises:
      ValueError: If ``make`` raised a ValueError, OSError or RuntimeError anywhere.
    """
    if jax.process_count() == 1:
        return make()
    value, error = None, None
    try:
        value = make()
    except (ValueError, OSError, RuntimeError) as raised:
        error = raised
    told = gather(str(error) or repr(error) if error else "")
    if any(told):
        number = next(number for number, text in enumerate(told) if text)
        raise ValueError(f"Process {number} of {len(told)}: {told[number]}") from error
    return value  # type: ignore[return-value]


def of_first(make: Callable[[], Any]) -> Any:
    """Gives all processes a JSON value that the first one makes; what it raises, all raise."""
    made = everywhere(lambda: json.dumps(make()) if is_first() else "")
    return json.loads(gather(made)[0])


def any_of(flag: bool) -> bool:
    """Whether any process says yes; all must call it."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.bool_(flag)).any())


def check_equal(facts: dict[str, Any], *, are_secret: bool) -> None:
    """Raises ValueError, on every process, where they differ in a fact.

    Args:
      facts: Name -> JSON value; long values are told as they are, so give hashes of those.
      are_secret: The message names the facts that differ, and not their values.
    """
    told = [json.loads(text) for text in gather(json.dumps(facts, sort_keys=True))]
    for number, other in enumerate(told[1:], start=1):
        names = told[0].keys() | other.keys()
        differing = sorted(name for name in names if other.get(name) != told[0].get(name))
        if differing:
            values = "; ".join(
                f"{name} in process {number}"
                if are_secret
                else f"{name} is {told[0].get(name)!r} in process 0, {other.get(name)!r} in "
                f"process {number}"
                for name in differing
            )
            raise ValueError(
                f"The processes of a run must not differ: {values}. Start all of them with the "
                "same code and command line."
            )
