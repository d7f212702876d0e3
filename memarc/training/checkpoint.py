"""Saves and restores a run through Orbax; refuses what belongs to another run.

A checkpoint holds the train state and, as JSON, who it belongs to: the run's config, a hash of
its rows, and the root entropy. With those a resumed run is the same run, bit for bit. All of it
is secret (noise key, entropy); publish records and parameters, not checkpoints.
"""

import contextlib
import dataclasses
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from memarc import paths
from memarc.training import processes
from memarc.training.step import TrainState

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Identity:
    """What must be equal for a checkpoint to be continued.

    Attributes:
      config: The run's whole config, plain JSON values.
      data: A hash of the train rows, which is secret.
      inputs: What else must be equal wherever the run goes on, by name.
    """

    config: dict[str, Any]
    data: str
    inputs: dict[str, str] = dataclasses.field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run in one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        identity: Identity,
        entropy: int,
        every: int,
        keep: int,
    ) -> None:
        """Opens a folder, made if absent.

        Args:
          folder: Holds one folder per saved step.
          identity: Says which run the checkpoints belong to.
          entropy: Root entropy of a run that starts; that of a checkpoint replaces it.
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
        self._about = {**dataclasses.asdict(identity), "entropy": entropy}
        folder = folder.absolute()
        processes.of_first(lambda: paths.make_private_folder(folder))
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def entropy(self) -> int:
        """The root entropy of the run: that of its checkpoint, if there is one.

        Raises:
          ValueError: If the latest checkpoint belongs to another run, or there are checkpoints and
            none can be read; nothing is changed.
        """
        if not self._manager.all_steps():
            return self._about["entropy"]
        _, about = self._newest("about", ocp.args.JsonRestore(), lambda about, _: "config" in about)
        differing = differing_fields(about["config"], self._about["config"])
        if about["data"] != self._about["data"]:
            differing.append("the train rows themselves")
        if "inputs" in about:  # Older checkpoints hold none.
            differing += differing_fields(about["inputs"], self._about["inputs"], "inputs")
        if differing:
            raise ValueError(
                f"{self._manager.directory} holds a checkpoint of another run; these differ: "
                f"{'; '.join(differing)}. Use another workdir, or the config it was started with."
            )
        # Older checkpoints hold the entropy as a string.
        kept = {key: about.get(key, value) for key, value in self._about.items()}
        self._about = kept | {"entropy": int(about["entropy"])}
        return self._about["entropy"]

    def restore(self, state: TrainState) -> TrainState:
        """The newest saved state that is whole, or the given one if nothing was saved yet.

        Newer states that are damaged are told and deleted; their steps will be made again, with the
        same result.

        Args:
          state: A state of the shapes, dtypes and places that are wanted.

        Raises:
          ValueError: If there are checkpoints and none is whole.
        """
        if not self._manager.all_steps():
            return state
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, _without_keys(state))
        number, restored = self._newest(
            "state",
            ocp.args.StandardRestore(wanted),
            lambda state, number: _digest(state) == self._read("about", number)["digest"],
        )
        for newer in [x for x in self._manager.all_steps() if x > number]:
            self._manager.delete(newer)
        return _with_keys(restored, state)

    def _newest(self, item: str, how: Any, is_whole: Callable[[Any, int], bool]) -> tuple[int, Any]:
        """Finds the number and the content of the newest checkpoint whose item is whole."""
        numbers = sorted(self._manager.all_steps(), reverse=True)
        for number in numbers:
            try:
                content = self._read(item, number, how)
                if is_whole(content, number):
                    return number, content
                reason = "its content is not what was saved"
            except Exception as error:  # Damage shows as errors of many kinds.
                reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else error
            _LOGGER.warning(
                "The checkpoint of step %d in %s is damaged (%s); an earlier one is used.",
                number,
                self._manager.directory,
                reason,
            )
        raise ValueError(
            f"No checkpoint of {numbers} in {self._manager.directory} is whole. What was spent is "
            "in the ledger; restore the folder, or begin a new run in another workdir."
        )

    def _read(self, item: str, number: int, how: Any = None) -> Any:
        """Reads one item of one checkpoint, as JSON unless ``how`` says otherwise."""
        how = ocp.args.JsonRestore() if how is None else how
        return self._manager.restore(number, args=ocp.args.Composite(**{item: how}))[item]

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
        plain = _without_keys(state)
        about = {**self._about, "digest": _digest(plain)}
        with self._explained():
            self._manager.save(
                number,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(plain), about=ocp.args.JsonSave(about)
                ),
                force=True,
            )

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          ValueError: If it cannot be written, such as for a full disk.
        """
        with self._explained():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what goes wrong in writing into a ValueError that says what to do."""
        try:
            yield
        except jax.errors.JaxRuntimeError:  # Another process was lost while all waited to save.
            raise
        except Exception as error:  # The writing is asynchronous and raises many kinds.
            raise ValueError(
                f"A checkpoint cannot be written to {self._manager.directory} ({error}). Make room "
                "and run the same command again: earlier checkpoints are kept."
            ) from error

    def remove(self) -> None:
        """Deletes the folder and all that is in it, once every process is done with it."""
        self.close()
        processes.gather("closed")
        processes.of_first(lambda: shutil.rmtree(self._manager.directory))

    def close(self) -> None:
        """Waits and frees the folder."""
        self._manager.close()


def _is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed key."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _digest(state: Any) -> str:
    """A hash of all arrays of a state without keys."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        found.update(jax.tree_util.keystr(path).encode())
        found.update(processes.whole(leaf).tobytes())
    return found.hexdigest()


def _without_keys(state: Any) -> Any:
    """Turns typed keys into their words, so that files hold plain arrays."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _with_keys(restored: Any, like: Any) -> Any:
    """Turns words back into typed keys where ``like`` has keys."""

    def wrap(leaf: Any, wanted: Any) -> Any:
        if not _is_key(wanted):
            return leaf
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(wanted))

    return jax.tree.map(wrap, restored, like)


def differing_fields(saved: Any, given: Any, path: str = "config") -> list[str]:
    """Names every field in which two nested dicts differ, with both values.

    Args:
      saved: What was kept; a field that it lacks counts as None.
      given: What is there now.
      path: What stands before the names.
    """
    if isinstance(saved, dict) and isinstance(given, dict):
        found = []
        for key in sorted(saved.keys() | given.keys()):
            found += differing_fields(saved.get(key), given.get(key), f"{path}.{key}")
        return found
    return [] if saved == given else [f"{path} is {given!r}, saved {saved!r}"]
