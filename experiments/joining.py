"""How one process of a run finds the others: flags, joining, and leaving when they are lost."""

import os
import sys

import jax
from absl import flags

from experiments import cli
from memarc.training import processes

LOST = 3
"""Exit status of a process that cannot go on with the others."""

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One process of several; SLURM, Open MPI, Cloud TPU and GKE are found."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, where no cluster is found."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes in all.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
_CONNECT_SECONDS = flags.DEFINE_integer("connect_seconds", 300, "How long to wait for the others.")
_HEARTBEAT_SECONDS = flags.DEFINE_integer(
    "heartbeat_seconds", 100, "All stop when one of them has been silent for so long."
)


def join() -> None:
    """Joins the other processes of the run, if flags say that there are any.

    Raises:
      ValueError: If the flags do not go together, or the others do not come.
    """
    given = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if _DISTRIBUTED.value or any(value is not None for value in given):
        processes.start(
            *given,
            connect_seconds=_CONNECT_SECONDS.value,
            heartbeat_seconds=_HEARTBEAT_SECONDS.value,
        )


def leave(error: Exception) -> None:
    """Ends a process of several at once: a regular end would wait for the others, who wait too.

    Returns where there is one process, or --traceback asks for the whole error.
    """
    if jax.process_count() == 1 or cli.TRACEBACK.value:
        return
    print(
        f"error: Process {jax.process_index()} of {jax.process_count()} cannot go on: "
        f"{str(error)[:1000]}\nIf another one was lost, start all of them again by the same "
        "command: what was saved is kept.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST)
