"""Ranges of leaves are read from files alone, and whole models go straight to their devices."""

import concurrent.futures
import json
import pathlib
import socket

import jax
import numpy as np
import pytest

from memarc.models import pretrained, tensor_files
from memarc.models.families.known import name_table
from tests import commands, fast_compile
from tests.models import load_process

STATUS = pathlib.Path("/proc/self/status")
KINDS = tuple(load_process.CONFIGS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folders")
    load_process.write(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    load_process.write_llama(folder / "llama")
    return folder


def checked(devices, *arguments):
    """What tests/models/load_process.py finds on simulated devices."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    done = commands.run(
        "tests.models.load_process", *arguments, env={"XLA_FLAGS": fast_compile.flags(flag)}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# Ranges.


@pytest.mark.parametrize("block_bytes", [1, 2**18])
@pytest.mark.parametrize("kind", KINDS)
def test_any_range_of_a_leaf_is_that_of_the_whole_leaf(folders, monkeypatch, kind, block_bytes):
    monkeypatch.setattr(tensor_files, "_BLOCK_BYTES", block_bytes)
    config, folder, rng = load_process.CONFIGS[kind], folders / kind, np.random.default_rng(0)
    params, tensors = load_process.random_params(config), tensor_files.find(folder, config)
    for entry in name_table(config):
        whole = params
        for name in entry.path:
            whole = whole[name]
        for _ in range(5):
            ranges = [tuple(sorted(rng.integers(0, size + 1, 2).tolist())) for size in whole.shape]
            found = tensor_files.read(tensors, config, entry, ranges, np.float32)
            wanted = whole[tuple(slice(*bounds) for bounds in ranges)]
            np.testing.assert_array_equal(found, wanted, strict=True)
            assert found.flags.owndata  # No view into a mapped file.


def test_a_range_reads_no_other_layer(folders, monkeypatch):
    config = load_process.CONFIGS["llama"]
    tensors, read = tensor_files.find(folders / "llama", config), []
    copy = tensor_files._copy
    monkeypatch.setattr(tensor_files, "_copy", lambda *args: read.append(args[2]) or copy(*args))
    (entry,) = [x for x in name_table(config) if x.path[-2:] == ("intermediate", "kernel")]
    tensor_files.read(tensors, config, entry, [(1, 2), (2, 5), (3, 9)], np.float32)
    assert read == [[(3, 9), (2, 5)]]  # One layer; the file holds [O, I].


# Devices.


@pytest.mark.parametrize("storage_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_device_gets_what_the_host_would(folders, kind, storage_dtype):
    host = load_process.load(folders / kind, storage_dtype, "host")
    params = load_process.load(folders / kind, storage_dtype, None)
    assert load_process.is_equal(params, host)


def test_each_device_of_a_mesh_gets_its_part_bit_for_bit_and_nothing_is_read_twice(folders):
    found = checked(4, "leaves", folders, ",".join(KINDS), "2x2,1x4")
    assert len(found) == len(KINDS) * 2 * 2
    for case, facts in found.items():
        assert facts["equal"] and facts["stays"] and facts["read"] == 1.0, case
        # Whole, cut along inputs, and along outputs.
        assert facts["cut"] == ["P()", "P(None, 'model')", "P(None, None, 'model')"], case


def test_blocks_are_cut_whole_and_are_those_of_the_host_bit_for_bit(folders):
    """Of five blocks of two inputs none is cut; where outputs are cut, so are scales."""
    found = checked(4, "blocks", folders, "llama", "2x2")
    assert len(found) == 2
    for case, facts in found.items():
        assert facts["equal"] and facts["stays"], case
        assert facts["cut"] == ["P(None, None, 'model')"] * 2, case


def test_each_of_two_processes_reads_what_its_own_devices_get(folders):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    arguments = (2, "leaves", folders, "gpt2,llama", "2x2,1x4", address, 2)
    with concurrent.futures.ThreadPoolExecutor(2) as both:
        found = list(both.map(lambda number: checked(*arguments, number), range(2)))
    for of_process in found:
        for case, facts in of_process.items():
            assert facts["equal"] and facts["stays"], case
            if case.endswith("1x4"):  # Half of all kernels, and what is whole everywhere.
                assert 0.5 < facts["read"] < 0.65, case
            else:
                assert facts["read"] == 1.0, case


@pytest.mark.parametrize(
    ("kind", "mesh"), [("llama", "1x4"), pytest.param("bert", "2x2", marks=pytest.mark.slow)]
)
def test_methods_start_from_arrays_on_a_mesh_as_from_those_of_the_host(folders, kind, mesh):
    found = checked(4, "methods", folders, kind, mesh)
    assert len(found) == len(load_process.METHODS)
    for case, facts in found.items():
        assert all(facts.values()), (case, facts)


def test_files_that_do_not_fit_are_refused_before_anything_is_read(folders, tmp_path, monkeypatch):
    for path in (folders / "llama").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    monkeypatch.setattr(tensor_files, "read", lambda *_, **__: pytest.fail("Something was read."))
    for placement in ("host", None):
        with pytest.raises(ValueError, match=r"missing: \['layers\.3\.input_layernorm"):
            load_process.load(tmp_path, "float32", placement)


# Memory, the pages of mapped files included.


@pytest.mark.skipif(not STATUS.exists(), reason=f"no {STATUS}")
@pytest.mark.parametrize("mesh", ["1x1", "1x4"])
def test_memory_grows_by_the_model_and_one_leaf(llama, mesh):
    devices = int(mesh[-1])
    assert 1.0 < checked(devices, "memory", llama, "llama", mesh) <= 1.3
    assert checked(devices, "memory by the host", llama, "llama", mesh) > 1.9


def test_the_rule_of_a_sharding_is_asked_for_every_leaf_and_no_other(folders):
    asked, config = [], load_process.CONFIGS["llama"]
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    pretrained.load(
        folders / "llama",
        dtype="float32",
        storage_dtype="float32",
        sharding_of=lambda *leaf: asked.append(leaf) or device,
    )
    assert sorted(asked) == sorted((x.path, x.leaf_shape(config)) for x in name_table(config))
