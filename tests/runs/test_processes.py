"""Runs in several processes: the one-process result, one voice, and no process left waiting."""

import faulthandler
import json
import os
import pathlib
import re
import signal
import socket
import time

import jax
import numpy as np
import pytest
from jax._src import xla_bridge

from experiments.joining import LOST
from memarc.privacy import ledger_entries
from memarc.report import records
from memarc.runs import run
from memarc.training import export
from memarc.training import processes as processes_lib
from tests import commands, fast_compile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEARTBEAT = 6  # Seconds.
STEPS = 30


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(folder, weights, count, *more, devices=1, only_last=()):
    """Starts the processes of one run of the toy config; ``only_last`` is told to the last."""
    port = free_port()
    return [
        commands.start(
            "experiments.run",
            f"--config={ROOT}/tests/runs/toy_config.py",
            f"--workdir={folder}",
            f"--config.model.weights={weights}",
            "--config.seed=5",
            "--config.optimizer.name=sgd",
            f"--coordinator_address=localhost:{port}",
            f"--num_processes={count}",
            f"--heartbeat_seconds={HEARTBEAT}",
            *more,
            f"--process_id={number}",
            *(only_last if number == count - 1 else ()),
            env={
                "http_proxy": "http://localhost:1",  # Nobody answers there.
                "XLA_FLAGS": fast_compile.flags(
                    f"--xla_force_host_platform_device_count={devices}"
                ),
            },
        )
        for number in range(count)
    ]


def ended(processes) -> list[tuple[int, str]]:
    """(exit status, all that it said) of each."""
    done = [process.ended(240) for process in processes]
    return [(process.returncode, process.stdout + process.stderr) for process in done]


def lines(folder) -> list[dict]:
    path = folder / "log.jsonl"
    whole = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(text) for text in whole]


def await_step(folder, number) -> None:
    end = time.monotonic() + 120
    while not any(line.get("step", 0) >= number for line in lines(folder)):
        assert time.monotonic() < end, "the run does not get on"
        time.sleep(0.05)


def assert_close(folder, other) -> None:
    first, second = (export.load(x)[0] for x in (folder, other))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


def one_process(config, folder, epochs):
    """The same run in this process."""
    config.data.update(buckets=(24,))
    config.optimizer.update(name="sgd")
    config.privacy.update(microbatch_size=8)
    config.training.update(epochs=epochs, checkpoint_every=1000)
    run.run_all(config.to_dict(), folder)
    return folder


@pytest.mark.checklist(21, 22)
@pytest.mark.parametrize(
    ("count", "devices", "more"),
    [
        (2, 2, ("--config.mesh.model=2", "--config.mesh.state=cut")),
        pytest.param(4, 1, (), marks=pytest.mark.slow),
    ],
)
def test_the_result_is_that_of_one_process(config, tmp_path, count, devices, more):
    started = start(
        tmp_path / "many",
        config.model.weights,
        count,
        "--config.method=lora",
        "--config.training.epochs=0.7",
        *more,
        devices=devices,
    )
    config.method = "lora"
    one_process(config, tmp_path / "one", 0.7)
    done = ended(started)
    assert [status for status, _ in done] == [0] * count, done[-1][1][-2000:]
    assert "dev accuracy" in done[0][1]
    assert all("dev accuracy" not in said for _, said in done[1:])
    assert_close(tmp_path / "many", tmp_path / "one")
    many, one = (records.read(tmp_path / x / "record.json") for x in ("many", "one"))
    assert many.scores == one.scores
    assert len([line for line in lines(tmp_path / "many") if line["event"] == "step"]) == 2
    assert not (tmp_path / "many" / "checkpoints").exists()


@pytest.mark.checklist(3, 21, 40)
def test_a_killed_process_stops_all_and_a_restart_loses_and_charges_nothing(config, tmp_path):
    folder, weights = tmp_path / "many", config.model.weights
    more = (f"--config.training.epochs={STEPS / 3}", "--config.training.checkpoint_every=3")

    processes = start(folder, weights, 2, *more)
    await_step(folder, 5)
    os.kill(processes[1].process.pid, signal.SIGKILL)
    killed = time.monotonic()
    (status, said), _ = ended(processes)
    assert time.monotonic() - killed < 3 * HEARTBEAT
    # A collective breaks off, or the heartbeats stop: whichever is noticed first.
    broken, silent = "cannot go on" in said, "another task died" in said
    assert (status == LOST and broken) or (status != 0 and silent), said[-2000:]

    processes = start(folder, weights, 2, *more)
    await_step(folder, 9)
    os.kill(processes[1].process.pid, signal.SIGTERM)  # Told to one, all save and stop.
    for status, said in ended(processes):
        assert status == 143 and "The same command goes on from there" in said
    assert max(line["step"] for line in lines(folder)) < STEPS

    for status, said in ended(start(folder, weights, 2, *more)):
        assert status == 0, said[-2000:]
    assert_close(folder, one_process(config, tmp_path / "one", STEPS / 3))
    entries, _ = ledger_entries.read(folder)
    assert [entry.steps for entry in entries.values()] == [STEPS]
    assert {line["step"] for line in lines(folder)[:-1]} == set(range(1, STEPS + 1))


def test_a_mistake_of_one_is_told_by_all(config, tmp_path):
    processes = start(
        tmp_path / "x", config.model.weights, 2, only_last=("--config.privacy.epsilon=3",)
    )
    for status, said in ended(processes):
        assert status == 2 and "Traceback" not in said
        assert "privacy.epsilon is 8.0 in process 0, 3.0 in process 1" in said
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("coordinator", "count", "number", "message"),
    [
        (None, None, 1, "--coordinator_address and --num_processes are missing"),
        ("localhost:1", 2, None, "--process_id are missing"),
        (None, None, None, "No cluster was found"),
        ("localhost", 2, 1, "'localhost'; give HOST:PORT"),
        ("localhost:1", 2, 2, "--process_id is 2; give 0 to 1"),
        ("localhost:1", 2, 1, "Process 0 does not answer at localhost:1 after 0 s"),
    ],
)
def test_flags_that_find_no_other_process_say_what_to_give(
    monkeypatch, coordinator, count, number, message
):
    monkeypatch.setattr(xla_bridge, "backends_are_initialized", lambda: False)
    was_on = faulthandler.is_enabled()
    with pytest.raises(ValueError, match=re.escape(message)):
        processes_lib.start(coordinator, count, number, connect_seconds=0, heartbeat_seconds=9)
    if was_on:
        faulthandler.enable()


def test_one_process_talks_to_itself():
    assert processes_lib.gather("x") == ["x"]
    assert processes_lib.of_first(lambda: {"a": [1, None]}) == {"a": [1, None]}
    assert processes_lib.any_of(True) and not processes_lib.any_of(False)
    assert processes_lib.is_first()
    with pytest.raises(OSError, match="as it was"):
        processes_lib.everywhere(lambda: (_ for _ in ()).throw(OSError("as it was")))


@pytest.mark.parametrize("kind", [ValueError, OSError, RuntimeError])
def test_what_one_raises_all_raise(monkeypatch, kind):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes_lib, "gather", lambda text: ["", text])
    with pytest.raises(ValueError, match=r"Process 1 of 2: the disk\Z"):
        processes_lib.everywhere(lambda: (_ for _ in ()).throw(kind("the disk")))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("4096.0;tcp://10.0.0.1:9", "A part of a cluster's variables is there, and 'OMPI_COMM_W"),
        ("4096.0;unknown", "No cluster was found: Could not parse coordinator IP address from"),
    ],
)
def test_a_part_of_open_mpi_is_no_cluster(monkeypatch, uri, message):
    monkeypatch.setattr(xla_bridge, "backends_are_initialized", lambda: False)
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", uri)
    monkeypatch.setenv("https_proxy", "http://localhost:1")
    was_on = faulthandler.is_enabled()
    with pytest.raises(ValueError, match=re.escape(message)):
        processes_lib.start(None, None, None, connect_seconds=0, heartbeat_seconds=9)
    assert os.environ["https_proxy"] == "http://localhost:1"
    if was_on:
        faulthandler.enable()


def test_processes_that_differ_are_named(monkeypatch):
    told = ['{"a": 1, "b": 2}', '{"a": 1, "b": 2}', '{"a": 1, "b": 3}']
    monkeypatch.setattr(processes_lib, "gather", lambda text: told)
    with pytest.raises(ValueError, match="b is 2 in process 0, 3 in process 2"):
        processes_lib.check_equal({}, are_secret=False)
    with pytest.raises(ValueError, match="must not differ: b in process 2"):
        processes_lib.check_equal({}, are_secret=True)
    for left_out in ('{"a": 1}', '{"a": 1, "b": 2, "c": null, "d": 0}'):
        told[1] = left_out
        with pytest.raises(ValueError, match="in process 1"):
            processes_lib.check_equal({}, are_secret=False)
    told[1:] = told[0], told[0]
    processes_lib.check_equal({}, are_secret=True)
