"""Checkpoints hold the whole run, and refuse to be continued by another one."""

import errno
import json
import os

import jax
import jax.numpy as jnp
import pytest

from memarc.training.checkpoint import Checkpoints, Identity


def opened(folder, identity, entropy=5, every=2, keep=2):
    return Checkpoints(folder, identity=identity, entropy=entropy, every=every, keep=keep)


def test_entropy_and_state_come_back(toy, tmp_path):
    first = opened(tmp_path, toy.identity(), entropy=2**127 + 1)
    state = toy.start()
    assert first.entropy() == 2**127 + 1
    assert first.restore(state) is state
    first.save(state, 4, force=False)
    first.save(state, 5, force=False)  # Not due.
    first.close()
    second = opened(tmp_path, toy.identity(), entropy=3)
    assert second.entropy() == 2**127 + 1
    restored = second.restore(toy.start())
    assert restored.noise_state[0].key.dtype == state.noise_state[0].key.dtype
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4"]
    second.close()


def test_the_entropy_is_a_number_and_that_of_older_checkpoints_a_string(toy, tmp_path):
    """JSON and Orbax keep all 128 bits of it."""
    saved = opened(tmp_path, toy.identity(), entropy=2**128 - 1)
    saved.save(toy.start(), 2, force=True)
    saved.close()
    path = tmp_path / "2" / "about" / "metadata"
    about = json.loads(path.read_text())
    assert about["entropy"] == 2**128 - 1
    path.write_text(json.dumps({**about, "entropy": str(2**128 - 3)}))
    old = opened(tmp_path, toy.identity(), entropy=3)
    assert old.entropy() == 2**128 - 3
    old.save(toy.start(), 4, force=True)
    old.close()
    again = opened(tmp_path, toy.identity(), entropy=3)
    assert again.entropy() == 2**128 - 3
    again.close()


@pytest.mark.checklist(3)
def test_another_config_or_other_rows_are_refused_and_named(toy, tmp_path):
    first = opened(tmp_path, Identity({"privacy": {"epsilon": 8.0}, "task": "a"}, "x"))
    first.save(toy.start(), 2, force=True)
    first.close()
    other = opened(tmp_path, Identity({"privacy": {"epsilon": 3.0}, "task": "a"}, "x"))
    with pytest.raises(ValueError, match=r"config\.privacy\.epsilon is 3\.0, saved 8\.0"):
        other.entropy()
    other.close()
    rows = opened(tmp_path, Identity({"privacy": {"epsilon": 8.0}, "task": "a"}, "y"))
    with pytest.raises(ValueError, match="the train rows themselves"):
        rows.entropy()
    rows.close()
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def damaged(path, how):
    """Empties, cuts or flips a byte of the largest file that Orbax reads below a path."""
    files = [x for x in path.rglob("*") if x.is_file() and x.name != "commit_success.txt"]
    file = max(files, key=lambda x: x.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes({"empty": b"", "cut": bytes(content[:-3]), "flip": bytes(content)}[how])


@pytest.mark.checklist(3)
@pytest.mark.parametrize("how", ["empty", "cut", "flip"])
@pytest.mark.parametrize("item", ["state", "about"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_used(toy, tmp_path, caplog, item, how):
    saved = opened(tmp_path, toy.identity(), entropy=77, every=1)
    for number in (1, 2):
        state = toy.start().replace(step=jnp.int32(number))
        saved.save(state, number, force=False)
    saved.close()
    damaged(tmp_path / "2" / item, how)
    again = opened(tmp_path, toy.identity(), entropy=78)
    assert again.entropy() == 77
    assert int(again.restore(toy.start()).step) == 1
    assert "The checkpoint of step 2" in caplog.text and "an earlier one is used" in caplog.text
    again.save(toy.start(), 2, force=True)  # The step will be made again.
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.checklist(3)
def test_with_no_whole_checkpoint_nothing_starts_afresh(toy, tmp_path):
    """Fresh noise on the same rows would be a second release."""
    saved = opened(tmp_path, toy.identity())
    saved.save(toy.start(), 2, force=True)
    saved.close()
    damaged(tmp_path / "2" / "state", "flip")
    again = opened(tmp_path, toy.identity())
    with pytest.raises(ValueError, match=r"No checkpoint of \[2\] .* is whole"):
        again.restore(toy.start())
    again.close()
    assert (tmp_path / "2").is_dir()


def test_a_full_disk_is_told_and_earlier_checkpoints_stay(toy, tmp_path, monkeypatch):
    saved = opened(tmp_path, toy.identity())
    saved.save(toy.start(), 2, force=True)
    saved.wait()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(saved._manager, "save", full)
    with pytest.raises(ValueError, match=r"No space left on device.*earlier .* are kept"):
        saved.save(toy.start(), 4, force=True)
    saved.close()
    assert (tmp_path / "2").is_dir()


def test_a_process_that_is_lost_while_others_save_is_no_full_disk(toy, tmp_path, monkeypatch):
    saved = opened(tmp_path, toy.identity())

    def lost(*given, **more):
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed: Connection reset by peer")

    monkeypatch.setattr(saved._manager, "save", lost)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Connection reset"):
        saved.save(toy.start(), 2, force=True)
    saved.close()


def test_only_the_latest_are_kept_and_removal_leaves_nothing(toy, tmp_path):
    folder = tmp_path / "checkpoints"
    saved = opened(folder, toy.identity(), every=1, keep=2)
    for number in (1, 2, 3):
        saved.save(toy.start(), number, force=False)
    saved.wait()
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    saved.remove()
    assert not folder.exists()


@pytest.mark.parametrize(("every", "keep"), [(0, 1), (1, 0)])
def test_counts_below_one_are_refused(toy, tmp_path, every, keep):
    with pytest.raises(ValueError, match="at least 1"):
        opened(tmp_path, toy.identity(), every=every, keep=keep)
