"""Clipped sums of peers on a small case: right ones agree with a loop in float64, others do not.

The case has rows of different lengths, and a clip norm between the rows' norms.
"""

import importlib
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from benchmarks import files, launch, tensors
from benchmarks.peers import job
from benchmarks.peers.job import Ask
from tests.benchmarks import unclipped

CASES = (("w1", "full"), ("qwen_twin", "lora"))
"""An encoder with a head and a decoder, of whose tensors each is named in a way of its own."""


@pytest.fixture(scope="module", params=CASES, ids=["encoder", "decoder"])
def folder(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("check")
    files.write_check(*request.param, place)
    return place


def error(folder, peer, engine=""):
    """The error of a peer's sum, computed here; libraries mix dtypes as they like."""
    given = job.read(folder)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        got = peer.clipped_sum(given, Ask(engine, given.rows))
    return tensors.error(got, safetensors.numpy.load_file(folder / files.WANTED))


# By default each engine and each network once: that engines agree is shown of them by themselves.
@pytest.mark.parametrize(
    ("folder", "engine"),
    [
        pytest.param(CASES[0], "book_keeping", id="encoder-book_keeping"),
        pytest.param(CASES[1], "vmap", id="decoder-vmap"),
        pytest.param(CASES[0], "vmap", id="encoder-vmap", marks=pytest.mark.slow),
        pytest.param(CASES[1], "book_keeping", id="decoder-book_keeping", marks=pytest.mark.slow),
    ],
    indirect=["folder"],
)
def test_memarc_sums_as_the_loop_does(folder, engine):
    peer = importlib.import_module("benchmarks.peers.memarc_engines")
    assert error(folder, peer, engine) < launch.BOUND


@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated:DeprecationWarning")
def test_jax_privacy_sums_as_the_loop_does(folder):
    pytest.importorskip("jax_privacy")
    peer = importlib.import_module("benchmarks.peers.jax_privacy_net")
    assert error(folder, peer) < launch.BOUND


@pytest.mark.parametrize("name", ["opacus_ghost", "opacus_hooks", "opake"])
def test_peers_in_pytorch_sum_as_the_loop_does(folder, name):
    pytest.importorskip(name.partition("_")[0])
    peer = importlib.import_module(launch.PEERS[name].module)
    assert error(folder, peer) < launch.BOUND


def test_the_network_in_pytorch_is_memarcs_one(folder):
    """Row by row, by PyTorch's own differentiation: names, layouts, losses and masks agree."""
    torch = pytest.importorskip("torch")
    torch_net = importlib.import_module("benchmarks.peers.torch_net")
    given = job.read(folder)
    net, batch = torch_net.load(given), torch_net.load_batch(given)
    trained = {name: x for name, x in net.named_parameters() if x.requires_grad}
    total = {name: np.zeros(x.shape) for name, x in trained.items()}
    norms = []
    for i in range(given.rows):
        row = {key: x[i : i + 1] for key, x in batch.items()}
        loss = torch_net.row_losses(net(**torch_net.inputs(net, row)), row)[0]
        found = torch.autograd.grad(loss, list(trained.values()))
        norms.append(float(torch.sqrt(sum((x.double() ** 2).sum() for x in found))))
        for name, x in zip(trained, found, strict=True):
            total[name] += min(1.0, given.clip_norm / norms[-1]) * x.double().numpy()
    assert sum(norm > given.clip_norm for norm in norms) == given.rows - 2
    assert tensors.error(total, safetensors.numpy.load_file(folder / files.WANTED)) < 1e-5


def test_a_peer_that_forgets_to_clip_is_caught(folder):
    assert error(folder, unclipped) > 1000 * launch.BOUND


def test_the_rows_of_a_case_differ_in_length_and_the_last_is_the_shortest(folder):
    mask = safetensors.numpy.load_file(folder / files.BATCH)["attention_mask"]
    assert mask.sum(1).tolist() == [11, 10, 9, 8, 7]
    assert json.loads((folder / files.JOB).read_text())["rows"] == 5


def test_the_error_of_a_sum_is_relative_to_all_of_the_sum_that_is_wanted():
    wanted = {"a": np.array([3.0]), "b": np.array([0.0, 4.0])}
    assert tensors.error({"a": np.array([3.0]), "b": np.array([0.0, 3.5])}, wanted) == 0.1


@pytest.mark.parametrize("got", [{}, {"a": np.ones((2, 1))}, {"a": np.ones(2), "c": np.ones(1)}])
def test_tensors_that_are_not_those_that_are_trained_are_listed(got):
    with pytest.raises(ValueError, match=r"tensors are not those that are trained: [ac]: "):
        tensors.error(got, {"a": np.ones(2)})
