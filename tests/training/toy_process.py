"""A process that trains the toy problem and tells what it does, to be killed at any moment.

    python -m tests.training.toy_process FOLDER

It prints "step", "charge" or "save" right before doing each, and at its end a hash of the state.
"""

import hashlib
import sys
from pathlib import Path

import jax
import numpy as np

from memarc.privacy.ledger import Ledger
from memarc.training.checkpoint import Checkpoints
from tests.training.conftest import make_toy

STEPS = 12


def announced(name, function):
    """The function, announced on standard output."""

    def wrapped(*args, **kwargs):
        print(name, flush=True)
        return function(*args, **kwargs)

    return wrapped


def digest(state) -> str:
    """A hash of a whole train state."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        found.update(np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes())
    return found.hexdigest()


def main() -> None:
    """Trains in a folder, going on from what is there."""
    toy = make_toy(STEPS)
    toy.chunks = announced("step", toy.chunks)
    Ledger.charge = announced("charge", Ledger.charge)
    Checkpoints.save = announced("save", Checkpoints.save)
    state = toy.train(Path(sys.argv[1]))
    print("done", digest(state), flush=True)


if __name__ == "__main__":
    main()
