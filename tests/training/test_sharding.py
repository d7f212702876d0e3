"""A run on a mesh of simulated devices is the run on one device, whatever the mesh."""

import json

import pytest

from memarc.training.sharding import MeshConfig, place
from tests import commands

MESHES = ("1x1", "1x8", "2x4", "8x1cut", "2x4cut")
FAST = ("reversible/ghost",)
"""Whole commands compare lora by vmap on meshes (tests/runs)."""

SLOW = (
    "side/book_keeping",
    "lora/vmap",
    "lora/ghost",
    "reversible/vmap",
    "reversible/book_keeping",
    "full/loop",
    "full/ghost",
)


def run(meshes, cases):
    """What tests/training/mesh_process.py prints: one process with eight devices."""
    done = commands.run(
        "tests.training.mesh_process",
        *meshes,
        *cases,
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found():
    """Noise on every mesh."""
    return run(MESHES, ())


def assert_sums_are_those_of_one_device(meshes, cases):
    got = run(("1x1", *meshes), cases)
    for mesh in meshes:
        for case in cases:
            assert got[mesh][case] < 2e-5, (mesh, case)  # Relative, float32.


def test_clipped_sums_are_those_of_one_device():
    assert_sums_are_those_of_one_device(("2x4",), FAST)


@pytest.mark.slow
def test_clipped_sums_of_other_engines_and_meshes_are_those_of_one_device():
    assert_sums_are_those_of_one_device(("2x1", "4x1", "1x8", "2x4"), SLOW)
    assert_sums_are_those_of_one_device(("2x1", "4x1", "8x1", "1x8"), FAST)


@pytest.mark.slow
def test_a_step_along_a_direction_is_that_of_one_device():
    assert_sums_are_those_of_one_device(("2x1", "8x1cut", "2x4", "2x4cut"), ("lora/zeroth_order",))


@pytest.mark.checklist(21, 22)
@pytest.mark.parametrize("mesh", MESHES)
def test_noise_is_the_same_bit_for_bit_and_has_one_standard_deviation(found, mesh):
    assert found[mesh]["noise"] == found["1x1"]["noise"]
    assert abs(found[mesh]["noise_scale"] - 1.0) < 0.02


@pytest.mark.parametrize("mesh", MESHES)
def test_layers_are_cut_over_the_model_axis_alone(found, mesh):
    model = int(mesh.removesuffix("cut").split("x")[1])
    assert found[mesh]["bytes_of_kernels"] * model == found["1x1"]["bytes_of_kernels"]


@pytest.mark.parametrize("mesh", MESHES)
def test_the_state_is_cut_over_all_devices_if_asked(found, mesh):
    whole, cut = (304 * 50 + 7) * 4, (304 // 8 * 50 + 7) * 4
    assert found["1x1"]["bytes_of_state"] == whole
    assert found[mesh]["bytes_of_state"] == (cut if mesh.endswith("cut") else whole)


def test_sizes_that_do_not_fit_say_what_would():
    devices = [object()] * 8
    with pytest.raises(ValueError, match="there are 8 devices; give sizes whose product is 8"):
        place(MeshConfig(3, 2, "whole"), devices, 8)
    with pytest.raises(ValueError, match=r"mesh\.model 16, but there are 8"):
        place(MeshConfig(None, 16, "whole"), devices, 8)
    with pytest.raises(ValueError, match=r"8 devices cannot share evenly.*such as 24"):
        place(MeshConfig(None, 1, "whole"), devices, 27)
    with pytest.raises(ValueError, match=r"mesh\.data is 0"):
        MeshConfig(0, 1, "whole")
    with pytest.raises(ValueError, match=r"mesh\.state is 'halved'; choose one of"):
        MeshConfig(1, 1, "halved")
    assert place(MeshConfig(None, 1, "whole"), devices[:1], 27) is None
