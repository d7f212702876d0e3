"""Saves and restores a run through Orbax; refuses what belongs to another run.

A checkpoint holds the train state and, as JSON, who it belongs to: the run's config, a hash of
its rows, and the root entropy. With those a resumed run is the same run, bit for bit. All of it
is secret (noise key, entropy); publish records and parameters, not checkpoints.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from memarc.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class Identity:
    """What must be equal for a checkpoint to be continued.

    Attributes:
      config: The run's whole config, plain JSON values.
      data: Hash of the train rows. Secret.
    """

    config: dict[str, Any]
    data: str


class Checkpoints:
    """The checkpoints of one run in one folder."""

    def __init__(self, folder: Path, *, identity: Identity, entropy: int, every: int, keep: int):
        """Opens a folder, made if absent.

        Args:
          folder: Holds one folder per saved step.
          identity: Of the run.
          entropy: Root entropy of a run that starts; a restored one replaces it.
          every: Steps between checkpoints.
          keep: Number of latest checkpoints that are kept.

        Raises:
          ValueError: If ``every`` or ``keep`` is below 1.
        """
        if every < 1 or keep < 1:
            raise ValueError(
                f"training.checkpoint_every is {every} and keep_checkpoints {keep}; give at "
                "least 1 for both."
            )
        self._every = every
        self._about = {**dataclasses.asdict(identity), "entropy": str(entropy)}
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def entropy(self) -> int:
        """Root entropy of the run: that of its checkpoint, if there is one.

        Raises:
          ValueError: If the latest checkpoint belongs to another run; nothing is changed.
        """
        number = self._manager.latest_step()
        if number is None:
            return int(self._about["entropy"])
        restored: Any = self._manager.restore(
            number, args=ocp.args.Composite(about=ocp.args.JsonRestore())
        )
        about = restored["about"]
        differing = _differing(about["config"], self._about["config"])
        if about["data"] != self._about["data"]:
            differing.append("the train rows themselves")
        if differing:
            raise ValueError(
                f"{self._manager.directory} holds a checkpoint of another run; these differ: "
                f"{'; '.join(differing)}. Use another workdir, or the config it was started with."
            )
        self._about = about
        return int(about["entropy"])

    def restore(self, state: TrainState) -> TrainState:
        """The latest saved state, or the given one if nothing was saved yet.

        Args:
          state: Gives the shapes and dtypes that are wanted.
        """
        number = self._manager.latest_step()
        if number is None:
            return state
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, _without_keys(state))
        restored: Any = self._manager.restore(
            number, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        )
        return _with_keys(restored["state"], state)

    def ensure_begun(self, state: TrainState) -> None:
        """Saves the start of a new run and waits for it, before anything of the run is shown.

        A run that dies before its first regular checkpoint then draws the same noise again; fresh
        noise on the same rows would be a second release, charged nowhere.
        """
        if self._manager.latest_step() is None:
            self.save(state, int(state.step), force=True)
            self.wait()

    def save(self, state: TrainState, number: int, *, force: bool) -> None:
        """Saves in the background if update ``number`` is due or ``force`` is set."""
        if not force and number % self._every:
            return
        self._manager.save(
            number,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_without_keys(state)),
                about=ocp.args.JsonSave(self._about),
            ),
            force=True,
        )

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def remove(self) -> None:
        """Deletes the folder and all that is in it."""
        self.close()
        shutil.rmtree(self._manager.directory)

    def close(self) -> None:
        """Waits and frees the folder."""
        self._manager.close()


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_keys(state: Any) -> Any:
    """Typed keys as their words, so that files hold plain arrays."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _with_keys(restored: Any, like: Any) -> Any:
    """Words back to typed keys where ``like`` has them."""

    def wrap(leaf, wanted):
        if not _is_key(wanted):
            return leaf
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(wanted))

    return jax.tree.map(wrap, restored, like)


def _differing(saved: Any, given: Any, path: str = "config") -> list[str]:
    """Names every field in which two nested dicts differ, with both values."""
    if isinstance(saved, dict) and isinstance(given, dict):
        found = []
        for key in sorted(saved.keys() | given.keys()):
            found += _differing(saved.get(key), given.get(key), f"{path}.{key}")
        return found
    return [] if saved == given else [f"{path} is {given!r}, saved {saved!r}"]
