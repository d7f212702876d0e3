"""Checkpoints hold the whole run, and refuse to be continued by another one."""

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
