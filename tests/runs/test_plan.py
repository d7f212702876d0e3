"""What a run will take, told before it is made, is what its record says."""

import json
import math
import pathlib

import jax
import numpy as np
import pytest

from configs import common
from memarc.privacy import accounting
from memarc.privacy.sampling import PoissonSampler
from memarc.runs import assemble, forecast, largest, plan, run
from memarc.runs.parse import parse
from tests import commands

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def config(config):
    """Of the method that compiles quickest, calibrated by the quicker accountant."""
    config.method = "head"
    config.privacy.accountant = "rdp"
    return config


@pytest.fixture
def chosen(config):
    (chosen,) = parse(config.to_dict())
    return chosen


@pytest.mark.parametrize(("engine", "released"), [("vmap", 34), ("zeroth_order", 1)])
def test_what_a_run_takes_is_what_its_record_says_and_no_weight_is_read(
    config, tmp_path, monkeypatch, engine, released
):
    config.privacy.engine = engine
    (chosen,) = parse(config.to_dict())
    (record,) = run.run_all(config.to_dict(), tmp_path)
    monkeypatch.setattr(assemble.pretrained, "load", lambda *given, **more: pytest.fail("read"))
    monkeypatch.setattr(forecast, "_LEAST_SECONDS", 0.0)
    drawn = forecast.sketch(chosen, jax.devices()[:1])
    compiled = forecast.compile_for(drawn, 2**40)
    found = compiled.taken["step_bytes"] | {"backward_bytes": compiled.taken["backward_bytes"]}
    assert found.items() <= record.memory.items() and found["peak_bytes"] > 0
    assert drawn.trained == record.trainable_parameters
    assert compiled.engine == record.engine == engine
    assert drawn.released == released and drawn.trained == 34  # Numbers that a step noises.
    if released == 1:
        assert record.memory["backward_bytes_per_example"] == 4  # A slope, float32.
    moments = sum(x.size * 4 for x in jax.tree.leaves(drawn.state.opt_state))
    assert compiled.taken["whole_bytes"] >= found["reserved_bytes"] + moments
    paces = forecast.pace(drawn, compiled)
    (pace,) = paces.values()
    assert list(paces) == [24] and pace.rows == 8
    assert 0 < pace.update_seconds and 0 < pace.batch_seconds < math.inf


@pytest.mark.parametrize(
    ("group", "kind"), [((), "reviews"), ((2,), "restaurants")], ids=["rows", "groups"]
)
def test_random_batches_have_the_shapes_of_the_runs(config, chosen, group, kind):
    if kind == "restaurants":
        writing = common.generation(kind)
        common.restaurants(writing)
        writing.data.update(unit="input", references_per_group=2)
        (chosen,) = parse(writing.to_dict())
    drawn = assemble.sketch(chosen, None, None)
    for length, shapes in drawn.shapes.items():
        batch = forecast._random(drawn, length)
        assert batch.keys() == shapes.keys()
        for name, like in shapes.items():
            assert (batch[name].shape, batch[name].dtype) == (like.shape, like.dtype)
        assert batch["input_ids"].shape[1:] == (*group, length)


@pytest.mark.parametrize(("storage", "most"), [("bfloat16", 0.51), ("int8", 0.8)])
def test_weights_are_sketched_as_they_are_held(config, storage, most):
    """Layers' kernels in bytes and their scales; all else in the compute dtype, float32."""
    whole = assemble.sketch(parse(config.to_dict())[0], None, None)
    config.model.update(storage_dtype=storage, storage_block=8 if storage == "int8" else 32)
    (chosen,) = parse(config.to_dict())
    held = assemble.sketch(chosen, None, None)
    read = assemble.parts_of(chosen, None, None)
    shapes = [
        jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), parts.params) for parts in (held, read)
    ]
    assert shapes[0] == shapes[1]
    sizes = [
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(parts.params))
        for parts in (whole, held)
    ]
    assert sizes[1] < most * sizes[0]


@pytest.mark.parametrize(
    ("fixed", "a_row", "limit", "most", "wanted"),
    [
        (100, 10, 450, 99, 35),
        (100, 10, 450, 20, 20),
        (100, 10, 170, 99, 7),
        (100, 10, 110, 99, 1),
        (100, 10, 109, 99, None),
        (100, 10, 10_000, 1, 1),
    ],
)
def test_the_most_rows_that_fit_are_found_where_bytes_are_a_line(fixed, a_row, limit, most, wanted):
    seen = []

    def taken(rows):
        seen.append(rows)
        return fixed + a_row * rows

    assert largest.most_that_fit(taken, limit, most) == wanted
    assert len(seen) <= 5


def test_the_most_rows_fit_where_bytes_are_no_line():
    """Bytes that jump are looked at again; what is answered was tried."""
    found = largest.most_that_fit(lambda n: 10 * n + 90 * (n > 20), 400, 99)
    assert 10 * found + 90 * (found > 20) <= 400 and found >= 28
    assert largest.most_that_fit(lambda n: 10 * n if n < 6 else None, 400, 99) == 5
    seen: list[int] = []

    def curved(n: int) -> int:
        seen.append(n)
        return 100 + 5 * n + n * n

    found = largest.most_that_fit(curved, 100_000, 10_000)
    assert found is not None and 313 * 16 / 17 <= found <= 313 and len(seen) <= 16


def test_calls_of_a_step_are_counted_by_what_draws_it():
    """Draws of 3 from 4 rows at rate 1/2, two at once: ceil(n / 2) over n = 0 to 4, by hand."""
    sampler = PoissonSampler(4, 0.5, None)
    chances = np.array([1, 4, 6, 4, 1]) / 16
    assert plan.expected_calls(sampler, 2) == pytest.approx(chances @ [0, 1, 1, 2, 2])
    cut = PoissonSampler(4, 0.5, 2)
    assert plan.expected_calls(cut, 2) == pytest.approx(chances @ [0, 1, 1, 1, 1])
    pace = plan.Pace(batch_seconds=3.0, update_seconds=1.0, rows=2)
    assert pace.step_seconds(sampler) == pytest.approx(1 + 3 * 20 / 16)


def test_noise_is_that_of_the_plan_and_of_plans_near_it(chosen):
    mechanism = assemble.plan(chosen, 60)
    found = plan.noise(chosen, mechanism, released=400)
    assert (found["units"], found["steps"], found["batch"], found["sampling_rate"]) == (
        60,
        3,
        20,
        1 / 3,
    )
    assert found["sigma"] == found["sigma_rdp"] > found["sigma_pld"]
    assert found["noise_over_batch"] == pytest.approx(found["sigma"] * 1.0 / 20)
    assert found["noise_norm"] == pytest.approx(20 * found["noise_over_batch"])  # sqrt(400).
    near = {(x["epochs"], x["batch"]): x for x in found["near"]}
    assert {k: x["steps"] for k, x in near.items()} == {
        (0.5, 20): 2,
        (2.0, 20): 6,
        (1.0, 10): 6,
        (1.0, 40): 2,
    }
    twice = accounting.epsilon(
        PoissonSampler(60, 1 / 3, None),
        noise_multiplier=found["sigma"],
        steps=6,
        delta=1e-3,
        accountant="rdp",
    )
    assert near[2.0, 20]["epsilon"] == twice > found["epsilon_rdp"] > near[0.5, 20]["epsilon"]


def test_what_a_time_allows_takes_no_longer_and_the_least_noise_is_marked(chosen):
    pace = plan.Pace(batch_seconds=0.0, update_seconds=1.0, rows=8)  # A step is a second.
    plans = plan.affordable(chosen, 60, pace, 400, seconds=4.0)
    sizes = {(x["epochs"], x["batch"]): x["steps"] for x in plans}
    assert sizes == {(0.5, 10): 3, (0.5, 20): 2, (0.5, 40): 1, (1, 20): 3, (1, 40): 2, (2, 40): 3}
    marks = {(x["epochs"], x["batch"]) for x in plan.marked(plans) if x["is_least"]}
    assert marks == {(0.5, 40), (1, 40), (2, 40)}
    assert all(x["sigma"] > 0 and x["seconds"] == x["steps"] for x in plans)


def test_methods_take_the_place_of_the_runs_own_and_like_runs_are_one(config):
    config.runs = {"a": {"method": "side"}, "b": {"method": "head"}}
    found = plan.variants(config.to_dict(), None, ["lora", "side+remat"])
    assert [(x.name, x.method, x.model.remat) for x in found] == [
        ("lora", "lora", "none"),
        ("side+remat", "side", "layer"),
    ]
    assert found[1].options["reduction"] == 2  # The config's own, not the default.
    assert [x.name for x in plan.variants(config.to_dict(), ["b"], [])] == ["b"]
    with pytest.raises(ValueError, match=r"Unknown method 'prefix'; choose one of \['full'"):
        plan.variants(config.to_dict(), None, ["prefix"])


def test_the_command_prints_a_line_and_tables_and_reads_no_rows(weights, tmp_path):
    output = tmp_path / "lines.jsonl"
    done = commands.run(
        "experiments.plan",
        f"--config={ROOT}/tests/runs/toy_config.py",
        f"--config.model.weights={weights}",
        "--config.data.train_rows=1000000000",  # Would be refused if it were read.
        "--config.training.epochs=1",
        "--config.privacy.accountant=rdp",
        "--config.method=head",
        *("--num_examples=60", "--target=cpu", "--nofit", f"--output={output}"),
    )
    assert done.returncode == 0, done.stderr
    line = json.loads(output.read_text())
    assert line["units"] == 60 and line["steps"] == 3 and line["whole_bytes"] > 0
    assert "seconds" not in line and "Memory and time:" in done.stdout
    done = commands.run("experiments.plan", "--target=cpu", "--seconds=3")
    assert done.returncode == 2 and "--seconds needs times of this device" in done.stderr
