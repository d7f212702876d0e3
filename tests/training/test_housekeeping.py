"""The log, signals and exported parameters."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.training import export
from memarc.training.interrupt import stop_requests
from memarc.training.log import Log


def opened(path, every=3, steps=7, **kwargs):
    return Log(path, title="t", first=0, steps=steps, every=every, tensorboard=False, **kwargs)


def test_lines_come_when_due_and_at_the_end(tmp_path):
    log = opened(tmp_path / "log.jsonl")
    for number in range(1, 8):
        log.step(number, {"rate": np.float32(number)}, waited=0.0)
    log.close()
    found = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["rate"]) for line in found] == [(3, 3.0), (6, 6.0), (7, 7.0)]


def test_seconds_of_earlier_processes_are_added(tmp_path):
    path = tmp_path / "log.jsonl"
    seconds = [1.0, 4.0, 2.0, 3.0]  # Two processes: 4 s and 3 s.
    path.write_text("".join(json.dumps({"seconds": value}) + "\n" for value in seconds))
    log = opened(path)
    assert 7.0 <= log.total_seconds() < 8.0
    log.close()


def test_tensorboard_gets_what_the_log_gets(tmp_path):
    pytest.importorskip("tensorboardX")
    log = Log(tmp_path / "log.jsonl", title="t", first=0, steps=2, every=1, tensorboard=True)
    log.step(1, {"rate": 0.5}, waited=0.0)
    log.close()
    assert any(path.stat().st_size for path in (tmp_path / "tensorboard").iterdir())


def test_a_log_needs_a_positive_interval(tmp_path):
    with pytest.raises(ValueError, match="log_every is 0"):
        opened(tmp_path / "log.jsonl", every=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_once_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with stop_requests() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), number)
        assert should_stop()
        assert signal.getsignal(number) is before  # A second one acts as usual.
    assert signal.getsignal(number) is before


def test_exported_parameters_come_back_with_their_shapes_dtypes_and_empty_parts(tmp_path):
    trainable = {
        "tuning": {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "gate": np.float32(0.5)},
        "head": {},
    }
    drawn = {"a": jnp.asarray([1.5, -2.0], jnp.bfloat16)}
    export.save(tmp_path, trainable, drawn)
    back, again = export.load(tmp_path)
    assert jax.tree.structure(back) == jax.tree.structure(trainable)
    np.testing.assert_array_equal(back["tuning"]["w"], trainable["tuning"]["w"])
    assert back["tuning"]["gate"].shape == () and back["tuning"]["gate"] == np.float32(0.5)
    assert again["a"].dtype == jnp.bfloat16 and again["a"].tolist() == [1.5, -2.0]
    assert {path.name for path in tmp_path.iterdir()} == {export.TRAINABLE, export.DRAWN}


def test_nothing_drawn_leaves_no_file(tmp_path):
    trainable = {"head": {"b": np.ones(2, np.float32)}}
    export.save(tmp_path, trainable, {"a": np.ones(1, np.float32)})
    export.save(tmp_path, trainable, {})
    assert [path.name for path in tmp_path.iterdir()] == [export.TRAINABLE]
    assert export.load(tmp_path)[1] == {}


def test_missing_and_damaged_parameters_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"trainable\.safetensors is missing; give the folder"):
        export.load(tmp_path)
    tree = {"a": np.ones(3, np.float32)}
    export.save(tmp_path, tree, tree)
    whole = (tmp_path / export.DRAWN).read_bytes()
    (tmp_path / export.DRAWN).unlink()  # The other file knows that it was there.
    with pytest.raises(ValueError, match=r"drawn\.safetensors is missing"):
        export.load(tmp_path)
    for damaged in (b"", b"\xff" * 20, whole[:-1]):
        (tmp_path / export.DRAWN).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"drawn\.safetensors cannot be read as parameters"):
            export.load(tmp_path)
