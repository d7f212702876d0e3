"""The loop makes the planned updates, whatever the draws, and resumes bit for bit."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from memarc.privacy import sampling, summation
from memarc.privacy.mechanism import PrivacyConfig
from memarc.privacy.sampling import PoissonSampler
from memarc.training import engine, loop, step


def equal(first, second):
    """Whether two trees hold the same bits."""
    words = lambda x: (
        jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    )
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(words(a), words(b)) for a, b in pairs)


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.checklist(20, 40)
def test_a_step_is_charged_before_its_noise_is_drawn_and_before_it_is_told(toy, tmp_path):
    """A charge that fails leaves no trace of its step."""
    order, problem, state = [], toy.problem(), toy.start()
    programs = toy.programs(problem, state)

    def update(*given):
        order.append("drawn")
        return programs.update(*given)

    def charge(number):
        if number == 3:
            raise OSError("the disk is full")
        order.append(f"charged {number}")

    log = types.SimpleNamespace(step=lambda number, *_, **__: order.append(f"told {number}"))
    checkpoints = types.SimpleNamespace(
        ensure_begun=lambda state: order.append("begun"),
        save=lambda state, number, force: order.append(f"saved {number}"),
    )
    with pytest.raises(OSError, match="the disk is full"):
        loop.train(
            problem,
            dataclasses.replace(programs, update=update),
            state,
            toy.mechanism,
            sampling.streams(5),
            checkpoints=checkpoints,
            log=log,
            schedule=toy.transforms()[2],
            charge=charge,
            watch=lambda number, _: order.append(f"seen {number}"),
            should_stop=lambda: False,
        )
    steps = [[f"charged {i}", "drawn", f"told {i}", f"seen {i}", f"saved {i}"] for i in (1, 2)]
    assert order == ["begun", *steps[0], *steps[1]]


@pytest.mark.checklist(20)
def test_steps_are_updates_and_not_batches(toy, tmp_path):
    draws = [toy.mechanism.sample(sampling.streams(11), k) for k in range(7)]
    assert sum(len(list(toy.chunks(draw))) for draw in draws) > 7
    state = toy.train(tmp_path)
    assert int(state.step) == toy.mechanism.steps == 7
    assert int(state.noise_state[0].num_updates) == 7
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 8))


def test_the_loop_makes_the_updates_that_the_equations_make(toy, tmp_path):
    """A plain float64 NumPy reference of clip, sum and divide, with the noise subtracted out."""
    toy.mechanism = dataclasses.replace(toy.mechanism, noise_multiplier=0.0, steps=1)
    state = toy.train(tmp_path)
    drawn = toy.mechanism.sample(sampling.streams(11), 0)
    total = np.zeros(4)
    for x, y in zip(toy.features[drawn].astype(float), toy.labels[drawn], strict=True):
        gradient = -y * 0.5 * np.append(x, 1.0)  # At w = 0 the logistic factor is one half.
        total += gradient * min(1.0, 0.5 / np.linalg.norm(gradient))
    mean = total / 8  # The plan's expected batch size, not len(drawn).
    assert len(drawn) != 8
    wanted = -0.1 * mean / (np.abs(mean) + 1e-8)  # Adam's first update at the peak rate.
    np.testing.assert_allclose(state.trainable["w"], wanted[:3], rtol=1e-4)
    np.testing.assert_allclose(state.trainable["b"], wanted[3], rtol=1e-4)


@pytest.mark.checklist(3)
@pytest.mark.parametrize(
    ("engine", "stop_after"), [("vmap", 1), ("vmap", 3), ("vmap", 4), ("zeroth_order", 3)]
)
def test_a_stopped_run_resumes_bit_for_bit(toy, tmp_path, engine, stop_after):
    toy.engine = engine
    whole = toy.train(tmp_path / "whole")
    stopped = toy.train(tmp_path / "parts", stop_after=stop_after)
    assert int(stopped.step) == stop_after
    toy.entropy = 999  # A resumed run takes the entropy of its checkpoint, not a new one.
    resumed = toy.train(tmp_path / "parts")
    assert toy.entropy == 11
    assert equal(resumed, whole)
    assert not equal(stopped.trainable, whole.trainable)


@pytest.mark.checklist(3)
def test_a_lost_step_is_drawn_again_exactly(toy, tmp_path):
    """After a crash the last checkpoint is older than the last step; the redo is the same."""
    whole = toy.train(tmp_path / "whole")
    crashed = dataclasses.replace(toy)
    real = crashed.chunks

    def crash(indices):
        if len(crashed_at) == 5:
            raise RuntimeError("power cut")
        crashed_at.append(1)
        return real(indices)

    crashed_at = []
    crashed.chunks = crash
    with pytest.raises(RuntimeError, match="power cut"):
        crashed.train(tmp_path / "crashed")
    assert equal(toy.train(tmp_path / "crashed"), whole)


@pytest.mark.checklist(3)
def test_a_run_that_dies_at_once_draws_the_same_noise_again(toy, tmp_path):
    """Its log already showed noised values; fresh noise would be a second, uncharged release."""
    whole = toy.train(tmp_path / "whole")
    dying = dataclasses.replace(toy)
    dying.chunks = lambda indices: 1 / 0
    with pytest.raises(ZeroDivisionError):
        dying.train(tmp_path / "dead")
    toy.entropy = 999
    assert equal(toy.train(tmp_path / "dead"), whole)


@pytest.mark.checklist(14)
def test_an_empty_draw_still_takes_a_noised_step(toy, tmp_path):
    empty = PoissonSampler(37, 1e-9, None)
    toy.mechanism = dataclasses.replace(toy.mechanism, sampler=empty)
    assert all(not len(toy.mechanism.sample(sampling.streams(11), k)) for k in range(7))
    state = toy.train(tmp_path)
    assert int(state.step) == 7
    assert np.abs(np.asarray(state.trainable["w"])).min() > 0
    assert all(line["noised_gradient_norm"] > 0 for line in lines(tmp_path))


@pytest.mark.checklist(17)
def test_programs_do_not_depend_on_the_draw(toy, tmp_path):
    """All are compiled beforehand; a draw of another shape could only fail."""
    problem, state = toy.problem(), toy.start()
    programs = toy.programs(problem, state)
    assert set(programs.accumulate) == set(problem.shapes)
    sizes = {len(toy.mechanism.sample(sampling.streams(11), k)) for k in range(7)}
    assert len(sizes) > 2
    toy.train(tmp_path)


@pytest.mark.checklist(34)
def test_the_public_log_holds_nothing_of_single_rows(toy, tmp_path):
    toy.train(tmp_path)
    noised = {"learning_rate", "noised_gradient_norm", "update_norm"}
    public = {"event", "seconds", "input_share", "step", *noised}
    assert all(set(line) == public for line in lines(tmp_path))


@pytest.mark.checklist(34, 41)
def test_metrics_are_functions_of_the_noised_gradient_alone(toy):
    """Two sums whose noised values are equal give equal metrics, states and updates."""
    privatize, optimize, _ = toy.transforms()
    update = step.make_update(privatize, optimize)
    state = toy.start()
    grad_sum = {"w": np.float32([1, 2, 3]), "b": np.float32(4)}
    noised, _ = privatize.update(grad_sum, state.noise_state)
    summed = lambda found: summation.add(summation.zero(found), found)
    replay = lambda updates, state, params=None: (noised, state)
    frozen_noise = privatize._replace(update=replay)
    other = {"w": np.float32([-9, 0, 9]), "b": np.float32(0)}
    changed = step.make_update(frozen_noise, optimize)(state, summed(other))
    wanted = update(state, summed(grad_sum))
    assert equal(changed[1], wanted[1])
    assert equal(changed[0].opt_state, wanted[0].opt_state)
    assert equal(changed[0].trainable, wanted[0].trainable)


def test_the_state_is_donated_and_the_callers_arrays_are_not(toy, tmp_path):
    start = {"w": np.ones(3, np.float32), "b": np.float32(0)}
    privatize, optimize, _ = toy.transforms()
    state = step.init_state(start, privatize, optimize)
    compiled = toy.programs(toy.problem(), state)
    compiled.update(state, summation.zero(state.trainable))
    np.testing.assert_array_equal(start["w"], np.ones(3))


@pytest.mark.checklist(19)
@pytest.mark.parametrize("microbatch_size", [1, 3, 5])
def test_the_sum_does_not_depend_on_microbatches(toy, microbatch_size):
    problem, state = toy.problem(), toy.start()
    draw = np.arange(13)

    def summed(size):
        settings = step.GradientSettings(toy.mechanism.clipping, "vmap", size)
        add = step.make_accumulate(problem.loss_fn, problem.precompute, settings)
        total = summation.zero(state.trainable)
        for _, batch, is_padding in toy.chunks(draw):
            total = add(total, state.trainable, problem.frozen, batch, is_padding)
        return total.value

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), summed(microbatch_size), summed(2)
    )


def test_a_logical_batch_of_4096_takes_the_memory_of_a_small_one(toy, tmp_path):
    """Arrays alive while the loop runs; a draw is never on the devices whole."""
    rng = np.random.default_rng(1)
    toy.features = rng.normal(size=(6000, 3)).astype(np.float32)
    toy.labels = np.where(toy.features[:, 1] > 0, 1.0, -1.0).astype(np.float32)
    chunks, counts, alive = toy.chunks, [], []

    def counted(indices):
        counts.append(len(indices))
        for chunk in chunks(indices):
            alive.append(sum(array.nbytes for array in jax.live_arrays()) - others)
            yield chunk

    def peak(expected):
        alive.clear()
        sampler = PoissonSampler(6000, expected / 6000, None)
        toy.mechanism = dataclasses.replace(
            toy.mechanism, sampler=sampler, divisor=expected, steps=1
        )
        toy.train(tmp_path / str(expected))
        return max(alive)

    toy.chunks = counted
    others = sum(array.nbytes for array in jax.live_arrays())  # Of other tests.
    small, large = peak(64), peak(4096)
    assert counts[0] < 100 and 3900 < counts[1] < 4300
    assert large <= small + 1000 < counts[1] * 3 * 4  # Bytes; a few batches are 80 each.


def test_auto_skips_taps_that_the_loss_does_not_take(toy):
    """The toy's loss is plain matrix products, which only ``vmap`` can clip."""
    privacy = PrivacyConfig(1.0, 1e-5, engine="auto", microbatch_size=2, physical_batch_size=7)
    found = engine.resolve(toy.problem(), toy.start(), privacy, privacy.rule, 2**40)
    assert found == step.GradientSettings(privacy.rule, "vmap", 2)


@pytest.mark.parametrize(("room", "chosen"), [(600, "vmap"), (599, "ghost"), (399, "vmap")])
def test_auto_takes_an_engine_that_fits_beside_the_state(toy, monkeypatch, room, chosen):
    """Work by bytes decides among those that fit, and work alone where none does."""
    costs = {"vmap": (600, 100), "ghost": (400, 180)}
    state = toy.start()
    privacy = PrivacyConfig(1.0, 1e-5, engine="auto", microbatch_size=2, physical_batch_size=7)

    def own_bytes(problem, trainable, settings, room):
        taken, _ = costs[settings.engine]
        return taken if taken <= room else None

    monkeypatch.setattr(engine, "_own_bytes", own_bytes)
    monkeypatch.setattr(
        engine, "work", lambda problem, trainable, x: costs.get(x.engine, (0, None))[1]
    )
    beside = sum(x.nbytes for x in jax.tree.leaves((state.step, state.opt_state)))
    beside += state.noise_state[0].num_updates.nbytes
    found = engine.resolve(toy.problem(), state, privacy, privacy.rule, beside + room)
    assert found.engine == chosen


def test_coins_are_fresh_at_every_step_and_the_same_when_drawn_again():
    entropy = sampling.streams(11).coins
    drawn = [sampling.step_generator(entropy, k).integers(2**32, size=9) for k in (0, 1, 0)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert not np.any(drawn[0] == drawn[1])
    assert entropy not in (sampling.streams(11).sampling, sampling.streams(12).coins)
