"""The whole command on eight simulated devices ends where it ends on one."""

import pathlib

import jax
import numpy as np
import pytest

from memarc.report import records
from memarc.runs import run
from memarc.training import export
from tests import commands, fast_compile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def command(folder, weights, *more):
    """Runs two steps of the toy config in a process of its own that sees eight devices."""
    return commands.run(
        "experiments.run",
        "--config=tests/runs/toy_config.py",
        f"--workdir={folder}",
        f"--config.model.weights={weights}",
        "--config.seed=5",
        "--config.training.epochs=0.7",
        *more,
        env={"XLA_FLAGS": fast_compile.flags("--xla_force_host_platform_device_count=8")},
    )


@pytest.mark.checklist(21, 22)
def test_parameters_and_spending_are_those_of_one_device(config, tmp_path):
    done = command(tmp_path / "mesh", config.model.weights, "--config.mesh.model=2")
    assert done.returncode == 0, done.stderr[-2000:]
    config.data.update(buckets=(24,))
    config.privacy.update(microbatch_size=8)
    config.training.update(epochs=0.7, checkpoint_every=1000)
    (one,) = run.run_all(config.to_dict(), tmp_path / "one")
    many = records.read(tmp_path / "mesh" / "record.json")
    assert many.device.startswith("8 x") or "cpu" in many.device
    assert (many.steps, many.epsilon, many.noise_multiplier) == (
        one.steps,
        one.epsilon,
        one.noise_multiplier,
    )
    first, second = (export.load(tmp_path / x)[0] for x in ("one", "mesh"))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


def test_a_mesh_that_does_not_fit_is_refused_before_anything_is_written(config, tmp_path):
    done = command(tmp_path / "mesh", config.model.weights, "--config.mesh.data=3")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "there are 8 devices; give sizes whose product is 8" in done.stderr
    assert not (tmp_path / "mesh").exists()
