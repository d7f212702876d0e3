"""A peer that is missing, fails or is wrong is a line with the reason, and no line has a time."""

import dataclasses
import json
import sys

import pytest

from benchmarks import files, launch, run, table
from benchmarks.peers import meter

SETTINGS = launch.Settings(
    engines=("vmap",), microbatch_size=sys.maxsize, steps=2, warmup=1, timeout=300.0
)


def lines_of(peer, folder, python=sys.executable, settings=SETTINGS):
    return run.compared(peer, python, folder, folder, settings)


def test_a_checkout_that_is_not_named_is_a_line_that_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTDP_HOME", raising=False)
    (line,) = lines_of(launch.PEERS["fastdp"], tmp_path)
    assert line["skipped"].startswith("FASTDP_HOME is not set; give the folder of a checkout")
    assert line["step"] is None and "median_seconds" not in line


def test_a_package_that_is_not_installed_is_a_line_that_says_so(tmp_path):
    (line,) = lines_of(launch.Peer("benchmarks.peers.absent", "absent"), tmp_path)
    assert "No module named 'benchmarks.peers.absent'" in line["skipped"]
    assert "benchmarks/requirements" in line["skipped"]


def test_an_interpreter_that_is_not_there_is_a_line_that_says_so(tmp_path):
    (line,) = lines_of(launch.PEERS["opake"], tmp_path, python=str(tmp_path / "python"))
    assert line["skipped"] == f"{tmp_path}/python cannot be run: No such file or directory"


def test_a_peer_that_does_not_end_is_a_line_that_says_so(tmp_path):
    soon = dataclasses.replace(SETTINGS, timeout=0.001)
    (line,) = lines_of(launch.PEERS["fastdp"], tmp_path, settings=soon)
    assert line["skipped"] == "it had not ended after 0.001 s"


def test_a_peer_that_fails_is_a_line_with_what_it_said_last(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    (line,) = lines_of(launch.Peer("benchmarks.peers.memarc_engines", "memarc"), tmp_path)
    assert line["skipped"].startswith("failed: TypeError: ")


@pytest.mark.slow
def test_a_wrong_sum_is_never_timed_and_a_right_one_is(tmp_path):
    """Both in processes of their own, from files alone."""
    small, whole = tmp_path / "check", tmp_path / "timed"
    files.write_check("w1", "lora", small)
    files.write_timed("w1", "lora", whole, True)
    wrong = launch.Peer("tests.benchmarks.unclipped", "nothing")
    (line,) = run.compared(wrong, sys.executable, small, whole, SETTINGS)
    assert line["skipped"].startswith("wrong: its clipped sum is off by ")
    assert line["clipped_sum_error"] > launch.BOUND and "seconds" not in line
    plain, private = run.compared(launch.PEERS["memarc"], sys.executable, small, whole, SETTINGS)
    assert (plain["step"], private["step"], private["engine"]) == ("plain", "private", "vmap")
    assert len(plain["seconds"]) == len(private["seconds"]) == 2
    assert private["clipped_sum_error"] < launch.BOUND
    ratio = private["median_seconds"] / plain["median_seconds"]
    assert private["over_plain"] == pytest.approx(ratio, abs=1e-4)


def test_the_table_has_a_row_for_what_was_not_timed_and_none_for_plain_steps():
    common = {"workload": "w1", "method": "lora", "is_tiny": False, "date": "2026-01-02"}
    about = {**common, "device": "a machine", "peer_versions": {"x": "1.0"}}
    lines = [
        {
            **about,
            "peer": "a",
            "step": "plain",
            "median_seconds": 2.0,
            "median_cpu_seconds": 2.5,
            "peak_bytes": 2**20,
        },
        {
            **about,
            "peer": "a",
            "step": "private",
            "engine": "ghost",
            "median_seconds": 3.0,
            "over_plain": 1.5,
            "median_cpu_seconds": 3.5,
            "cpu_over_plain": 1.4,
            "peak_bytes": None,
            "clipped_sum_error": 2e-7,
        },
        {
            **common,
            "peer": "b",
            "step": None,
            "device": None,
            "peer_versions": None,
            "skipped": "not installed",
        },
    ]
    _, _, first, second, _, below = table.table(lines, "markdown").splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in (first, second)]
    cpu = ["2,500 ms", "3,500 ms", "1.40"]
    assert cells[0][2:] == [
        "a (ghost)",
        "2,000 ms",
        "3,000 ms",
        "1.50",
        *cpu,
        "1 MiB",
        "",
        "2.0e-07",
        "",
    ]
    assert cells[1][2:] == ["b", *[""] * 9, "not installed"]
    assert below == "Machine: a machine. Date: 2026-01-02. x 1.0."


def test_steps_are_counted_and_warming_up_is_not_timed():
    done = []
    found = meter.measure(lambda: lambda: done.append(1), 3, 2, meter.HostMeter())
    assert len(done) == 5 and len(found["seconds"]) == len(found["cpu_seconds"]) == 3
    assert found["peak_bytes"] is None or found["peak_bytes"] > 2**20


def test_lines_are_json(tmp_path):
    (line,) = lines_of(launch.Peer("benchmarks.peers.absent", "absent"), tmp_path)
    assert json.loads(json.dumps(line)) == line
