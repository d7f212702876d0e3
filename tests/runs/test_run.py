"""A config in, a record out: every method, several runs, stops, and folders that are taken."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from memarc.privacy import auto
from memarc.report import records, spreads
from memarc.runs import assemble, inputs, plan, record, run, train, way
from memarc.runs.parse import parse
from memarc.training import engine, export
from tests import commands

ROOT = pathlib.Path(__file__).resolve().parents[2]


def parts(folder):
    return sorted(path.name for path in folder.iterdir())


def test_auto_chooses_an_engine_and_the_record_names_it(config, tmp_path):
    (by_vmap,) = run.run_all(config.to_dict(), tmp_path / "vmap")
    config.privacy.engine = "auto"
    (record,) = run.run_all(config.to_dict(), tmp_path / "auto")
    assert by_vmap.engine == "vmap" and record.engine in auto.CANDIDATES
    assert record.config["privacy"]["engine"] == "auto" and record.scores == by_vmap.scores


@pytest.mark.checklist(44)
def test_a_fit_chooses_how_sums_are_computed_and_nothing_else(config, tmp_path, monkeypatch):
    """The scores are the same, and no noised step is made again in another way."""
    config.training.checkpoint_every = 1000
    config.privacy.physical_batch_size = 5
    (given,) = run.run_all(config.to_dict(), tmp_path / "given")
    config.privacy.update(engine="auto", fit="fastest")
    (chosen,) = parse(config.to_dict())
    answers = iter([False])
    with pytest.raises(StopIteration):  # Dies after its second step; saved is the start.
        run.run_one(assemble.assemble(chosen), tmp_path / "fitted", lambda: next(answers))
    with monkeypatch.context() as patch:
        patch.setattr(way, "fitted", lambda run: run)  # As if there were room for three rows.
        with pytest.raises(ValueError, match=r"engine, rows at once, remat was .*, 5, none.*, 3, "):
            run.run_all(config.to_dict(), tmp_path / "fitted")
    (record,) = run.run_all(config.to_dict(), tmp_path / "fitted")
    assert record.engine in auto.CANDIDATES and record.scores == given.scores
    assert (record.microbatch_size, record.remat) == (5, "none")
    assert (given.microbatch_size, given.remat) == (3, "none")
    assert record.config["privacy"]["microbatch_size"] == 3  # As it was asked for.
    released = [export.load(tmp_path / name)[0] for name in ("given", "fitted")]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6), *released)


@pytest.mark.checklist(3)
def test_a_stopped_run_goes_on_to_the_same_parameters(config, tmp_path):
    config.data.buckets = (12, 24)
    run.run_all(config.to_dict(), tmp_path / "whole")
    (chosen,) = parse(config.to_dict())
    for seen in range(1, 3):
        with pytest.raises(train.Stopped, match=rf"after step {seen}/3"):
            run.run_one(assemble.assemble(chosen), tmp_path / "parts", lambda: True)
    run.run_all(config.to_dict(), tmp_path / "parts")
    whole, resumed = (export.load(tmp_path / name)[0] for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line).get("step") for line in lines]
    assert steps == [1, 2, 3, None]


@pytest.mark.checklist(3, 21, 44)
def test_noised_steps_are_made_again_by_the_same_computation_alone(config, tmp_path, monkeypatch):
    """Whatever else decides a step's sums is named: the same noise must not meet other sums."""
    weights = shutil.copytree(config.model.weights, tmp_path / "weights")
    config.model.weights = str(weights)
    config.training.checkpoint_every = 1000
    (chosen,) = parse(config.to_dict())
    answers = iter([False])
    with pytest.raises(StopIteration):  # Dies after its second step; saved is the start.
        run.run_one(assemble.assemble(chosen), tmp_path / "died", lambda: next(answers))

    def refused(name):
        with pytest.raises(ValueError, match=name):
            run.run_all(config.to_dict(), tmp_path / "died")

    for name, change in {
        "code was .*, is edited": lambda patch: patch.setattr(
            records, "code_digest", lambda: "edited"
        ),
        "version of jax was": lambda patch: patch.setattr(
            records, "versions", lambda: {"jax": "0"}
        ),
        "variable XLA_FLAGS was": lambda patch: patch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX"),
        "variable NVIDIA_TF32": lambda patch: patch.setenv("NVIDIA_TF32_OVERRIDE", "1"),
        "processor was": lambda patch: patch.setattr(inputs, "_processor", lambda: "another"),
    }.items():
        with monkeypatch.context() as patch:
            change(patch)
            refused(f"steps 1 to 2 were charged.*{name}")
    for option, other in (("jax_threefry_partitionable", False), ("jax_enable_x64", True)):
        before = getattr(jax.config, option)
        jax.config.update(option, other)
        try:
            refused(f"inputs.JAX's option {option} is '{other}', saved '{before}'")
        finally:
            jax.config.update(option, before)
    file = weights / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # One bit of one weight.
    assemble._backbone.cache_clear()
    refused("inputs.bytes of the weights is ")
    file.write_bytes(whole)
    assemble._backbone.cache_clear()
    run.run_all(config.to_dict(), tmp_path / "died")  # As it was, it goes on.


@pytest.mark.checklist(2, 39)
def test_without_a_seed_every_run_differs_and_says_so(config, tmp_path):
    config.seed = None
    for name in ("a", "b"):
        (record,) = run.run_all(config.to_dict(), tmp_path / name)
        assert record.reproducible_noise is False
    first, second = (export.load(tmp_path / name)[0] for name in ("a", "b"))
    assert not np.array_equal(first["head"]["kernel"], second["head"]["kernel"])


def test_several_runs_differ_in_what_the_config_says_and_finished_ones_stay(config, tmp_path):
    config.method = "bitfit"
    config.runs = {
        "tight": {"privacy": {"epsilon": 2.0}},
        "open": {"privacy": {"epsilon": float("inf")}, "method": "head"},
    }
    free, tight = run.run_all(config.to_dict(), tmp_path)  # In the order of their names.
    assert tight.epsilon <= 2.0 and free.epsilon == free.epsilon_pld == float("inf")
    assert (tight.method, free.method, free.noise_multiplier) == ("bitfit", "head", 0.0)
    assert parts(tmp_path) == ["open", "tight"]
    before = (tmp_path / "tight" / "record.json").stat().st_mtime_ns
    assert run.run_all(config.to_dict(), tmp_path, ["tight"]) == [tight]
    assert (tmp_path / "tight" / "record.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("shares", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_repeats_are_releases_of_their_own_with_a_mean(config, tmp_path, shares):
    config.seed, config.repeats = None, 2
    if shares:
        ledger = tmp_path.with_name(f"{tmp_path.name}-ledger")
        config.ledger.update(folder=str(ledger), epsilon=20.0, delta=1e-3)
    made = run.run_all(config.to_dict(), tmp_path)
    assert parts(tmp_path) == ["head", "head-r2"] == [record.name for record in made]
    first, second = (export.load(tmp_path / name)[0] for name in parts(tmp_path))
    assert not np.array_equal(first["head"]["kernel"], second["head"]["kernel"])
    assert [record.ledger["runs"] for record in made] == [1, 2 if shares else 1]
    assert (made[1].ledger["epsilon"] > made[1].epsilon) == shares
    assert made[0].config == made[1].config
    mean = np.mean([100 * record.headline for record in made])
    table = spreads.by_epsilon(made, None, "markdown")
    assert f"{mean:.1f} ± " in table and "(2)" in table


def test_repeats_have_names_and_seeds_in_order_and_come_with_their_run(config):
    config.repeats = 3
    config.runs = {"a": {}, "b": {"seed": 9}}
    found = {x.name: x.seed for x in parse(config.to_dict())}
    assert found == {"a": 5, "a-r2": 6, "a-r3": 7, "b": 9, "b-r2": 10, "b-r3": 11}
    assert [x.name for x in parse(config.to_dict(), ["a-r3", "b"])] == ["a-r3", "b", "b-r2", "b-r3"]
    assert [x.name for x in plan.variants(config.to_dict(), None, ())] == ["a", "b"]
    config.runs = {"a": {}, "a-r2": {}}
    with pytest.raises(ValueError, match=r"\['a-r2'\] have names of repeats of 'a'"):
        parse(config.to_dict())
    config.repeats = 0
    with pytest.raises(ValueError, match=r"config\.repeats is 0; give a whole number from 1"):
        parse(config.to_dict())


@pytest.mark.checklist(40)
def test_runs_that_share_a_ledger_are_composed_and_its_budget_stops_the_next(config, tmp_path):
    config.ledger.update(folder=str(tmp_path / "ledger"), epsilon=8.5, delta=1e-3)
    (first,) = run.run_all(config.to_dict(), tmp_path / "a")
    assert first.ledger == {"runs": 1, "epsilon": first.epsilon, "delta": 1e-3}
    config.seed = 6
    with pytest.raises(
        ValueError, match=r"have spent epsilon 7\.9.*by pld, above the budget of 8\.5"
    ):
        run.run_all(config.to_dict(), tmp_path / "b")
    assert not (tmp_path / "b" / "record.json").exists()
    config.privacy.epsilon = 0.2  # Noise for a small run leaves room.
    (second,) = run.run_all(config.to_dict(), tmp_path / "c")
    assert second.ledger["runs"] == 2 and first.epsilon < second.ledger["epsilon"] <= 8.5
    done = commands.run("experiments.account", f"--ledger={tmp_path / 'ledger'}")
    assert f", {second.ledger['epsilon']:.6g} by PLD" in done.stdout, done.stderr


@pytest.mark.checklist(3, 44)
def test_the_noise_of_a_seed_serves_one_set_of_rows_whatever_they_are_called(config, tmp_path):
    """Two releases of other rows under the same noise would tell the difference of the rows."""
    ledger = {"folder": str(tmp_path / "ledger"), "epsilon": 8.0, "delta": 1e-3}
    config.ledger.update(dataset="clinic", **ledger)
    run.run_all(config.to_dict(), tmp_path / "a")
    (chosen,) = parse(config.to_dict())
    other = assemble.assemble(chosen)
    rows = other.splits.train
    labels = np.where(np.arange(len(rows)) == 7, 1 - rows.labels, rows.labels)
    splits = dataclasses.replace(other.splits, train=dataclasses.replace(rows, labels=labels))
    with pytest.raises(ValueError, match=r"steps 1 to 3 were charged, .*train rows was"):
        run.run_one(dataclasses.replace(other, splits=splits), tmp_path / "b", lambda: False)
    assert not (tmp_path / "b" / "trainable.safetensors").exists()


@pytest.mark.checklist(3, 44)
def test_charged_steps_are_not_made_again_by_another_engine_that_auto_finds(
    config, tmp_path, monkeypatch
):
    config.training.checkpoint_every = 1000
    config.privacy.engine = "auto"
    (chosen,) = parse(config.to_dict())
    answers = iter([False])
    with pytest.raises(StopIteration):  # Dies after its second step; saved is the start.
        run.run_one(assemble.assemble(chosen), tmp_path / "out", lambda: next(answers))
    resolve = engine.resolve

    def another(*given):
        return dataclasses.replace(resolve(*given), engine="loop")

    monkeypatch.setattr(engine, "resolve", another)
    with pytest.raises(ValueError, match=r"engine, rows at once, remat was .* is loop, 3, none"):
        run.run_all(config.to_dict(), tmp_path / "out")


@pytest.mark.checklist(3, 40)
def test_a_run_whose_ledger_or_checkpoints_are_gone_is_not_made_again(config, tmp_path):
    (chosen,) = parse(config.to_dict())
    with pytest.raises(train.Stopped):
        run.run_one(assemble.assemble(chosen), tmp_path / "a", lambda: True)
    saved = (tmp_path / "a" / "ledger.jsonl").read_bytes()
    (tmp_path / "a" / "ledger.jsonl").unlink()
    with pytest.raises(ValueError, match="0 steps of this run, its checkpoint 1"):
        run.run_all(config.to_dict(), tmp_path / "a")
    (tmp_path / "a" / "ledger.jsonl").write_bytes(saved)
    run.run_all(config.to_dict(), tmp_path / "a")
    (tmp_path / "a" / "record.json").unlink()
    config.seed = 6  # Fresh noise on the same rows: a second release.
    with pytest.raises(ValueError, match="above the budget"):
        run.run_all(config.to_dict(), tmp_path / "a")


def test_a_folder_of_another_config_is_refused_and_left_alone(config, tmp_path):
    run.run_all(config.to_dict(), tmp_path)
    before = (tmp_path / "record.json").read_bytes()
    config.privacy.clip_norm = 2.0
    with pytest.raises(ValueError, match=r"config\.privacy\.clip_norm is 2\.0, saved 1\.0\. Use"):
        run.run_all(config.to_dict(), tmp_path)
    assert (tmp_path / "record.json").read_bytes() == before


def test_a_checkpoint_of_another_config_is_refused_before_training(config, tmp_path):
    (chosen,) = parse(config.to_dict())
    with pytest.raises(train.Stopped):
        run.run_one(assemble.assemble(chosen), tmp_path, lambda: True)
    config.privacy.epsilon = 4.0
    with pytest.raises(ValueError, match=r"config\.privacy\.epsilon is 4\.0, saved 8\.0"):
        run.run_all(config.to_dict(), tmp_path)
    config.privacy.epsilon = 8.0
    (again,) = parse(config.to_dict())
    other = assemble.assemble(again)
    turned = dataclasses.replace(other.splits.train, labels=1 - other.splits.train.labels)
    with pytest.raises(ValueError, match="these differ: the train rows themselves"):
        run.run_one(
            dataclasses.replace(other, splits=dataclasses.replace(other.splits, train=turned)),
            tmp_path,
            lambda: True,
        )
    assert (tmp_path / "checkpoints" / "1").is_dir()


@pytest.mark.checklist(3, 40)
def test_a_ledger_is_of_its_rows_and_a_runs_randomness_of_its_config(config, tmp_path):
    """What the run gives the ledger: its rows' hash and its whole config, without training."""
    config.ledger.update(folder=str(tmp_path / "ledger"), epsilon=80.0, delta=1e-3)

    def begin():
        (chosen,) = parse(config.to_dict())
        made = assemble.assemble(chosen)
        return train._begin_ledger(made, tmp_path, 7, 0, {"code": "1"})

    begin().close()
    begin().close()
    config.optimizer.learning_rate = 0.01
    with pytest.raises(ValueError, match=r"same randomness whose plan differs in \['config'\]"):
        begin()
    config.data.rows_seed = 4
    with pytest.raises(ValueError, match="has not seen these rows"):
        begin()


@pytest.mark.checklist(2)
@pytest.mark.parametrize(("seed", "says"), [(None, False), (0, True), (5, True)])
def test_every_seed_is_recorded_as_one(seed, says):
    assert bool(record.reproducible(seed)) == says


def test_a_mistake_in_the_last_run_is_found_before_the_first_is_trained(config, tmp_path):
    config.runs = {"good": {}, "bad": {"privacy": {"delta": 0.5}}}
    with pytest.raises(ValueError, match=r"delta is 0\.5"):
        run.run_all(config.to_dict(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.checklist(33)
def test_nothing_is_chosen_on_evaluation_rows(config, tmp_path):
    """Other evaluation rows change the scores at most: parameters and log stay as they were."""
    run.run_all(config.to_dict(), tmp_path / "a")
    config.data.dev_rows = 17
    run.run_all(config.to_dict(), tmp_path / "b")
    first, second = (export.load(tmp_path / name)[0] for name in ("a", "b"))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_sigterm_saves_and_ends_and_the_same_command_goes_on(config, tmp_path):
    process = commands.start(
        "experiments.run",
        f"--workdir={tmp_path}",
        f"--config={ROOT}/tests/runs/toy_config.py",
        f"--config.model.weights={config.model.weights}",
    )
    deadline = time.time() + 120
    log = tmp_path / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 2) and time.time() < deadline:
        time.sleep(0.05)
    os.kill(process.process.pid, signal.SIGTERM)
    done = process.ended(60)
    assert done.returncode == 143, done.stderr
    assert "The same command goes on" in done.stdout and "Traceback" not in done.stderr
    assert not (tmp_path / "record.json").exists()
    saved = max(int(name) for name in parts(tmp_path / "checkpoints"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert saved == lines[-1]["step"] < 2000
