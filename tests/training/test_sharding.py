"""A run on a mesh of simulated devices is the run on one device, whatever the mesh."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from memarc.training.sharding import MeshConfig, place

ROOT = pathlib.Path(__file__).resolve().parents[2]
MESHES = ["1x1", "2x1", "4x1", "8x1", "1x4", "2x4", "1x8"]


@pytest.fixture(scope="module")
def found():
    """What tests/training/mesh_process.py prints: one process with eight devices."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.mesh_process", *MESHES],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


CASES = [
    ("lora", "vmap"),
    ("lora", "ghost"),
    ("side", "book_keeping"),
    ("reversible", "vmap"),
    ("reversible", "ghost"),
    ("full", "loop"),
]


@pytest.mark.parametrize(("method", "engine"), CASES)
@pytest.mark.parametrize("mesh", MESHES[1:])
def test_clipped_sums_are_those_of_one_device(found, mesh, method, engine):
    assert found[mesh][f"{method} {engine}"] < 2e-5  # Relative, float32.


@pytest.mark.checklist(21, 22)
@pytest.mark.parametrize("mesh", MESHES)
def test_noise_is_the_same_bit_for_bit_and_has_one_standard_deviation(found, mesh):
    assert found[mesh]["noise"] == found["1x1"]["noise"]
    assert abs(found[mesh]["noise_scale"] - 1.0) < 0.02


@pytest.mark.parametrize("mesh", MESHES)
def test_layers_are_cut_over_the_model_axis_alone(found, mesh):
    model = int(mesh.split("x")[1])
    assert found[mesh]["bytes_of_kernels"] * model == found["1x1"]["bytes_of_kernels"]


def test_sizes_that_do_not_fit_say_what_would():
    devices = [object()] * 8
    with pytest.raises(ValueError, match="there are 8 devices; give sizes whose product is 8"):
        place(MeshConfig(3, 2), devices, 8)
    with pytest.raises(ValueError, match=r"mesh\.model 16, but there are 8"):
        place(MeshConfig(None, 16), devices, 8)
    with pytest.raises(ValueError, match=r"8 devices cannot share evenly.*such as 24"):
        place(MeshConfig(None, 1), devices, 27)
    with pytest.raises(ValueError, match=r"mesh\.data is 0"):
        MeshConfig(0, 1)
    assert place(MeshConfig(None, 1), devices[:1], 27) is None
