"""Claims about the mechanism: its parts come from one plan and cannot disagree."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.privacy import accounting
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum
from memarc.privacy.mechanism import Mechanism, PrivacyConfig
from memarc.privacy.noise import key_from_words
from memarc.privacy.sampling import PoissonSampler, streams

CONFIG = PrivacyConfig(
    epsilon=3.0,
    delta=1e-5,
    clip_norm=0.5,
    clipping="abadi",
    clipping_scope="flat",
    expected_batch_size=30,
    max_batch_size=None,
    engine="vmap",
    microbatch_size=4,
    physical_batch_size=16,
    noise_multiplier=None,
    accountant="rdp",  # The faster one.
)


def create(num_examples=1500, steps=20, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return Mechanism.create(config, num_examples=num_examples, steps=steps, unit="one row")


@pytest.mark.checklist(9, 11, 12, 13)
def test_every_part_comes_from_the_same_plan():
    mechanism = create()
    assert mechanism.sampler == PoissonSampler(1500, 0.02, None)
    assert mechanism.sampling_rate == 0.02
    assert mechanism.clipping == Clipping(0.5, "abadi")
    assert mechanism.divisor == 30
    assert mechanism.noise_stddev == mechanism.noise_multiplier * 0.5
    assert mechanism.event == accounting.event(
        mechanism.sampler, noise_multiplier=mechanism.noise_multiplier, steps=20
    )
    assert mechanism.neighbouring == "add_or_remove_one" and mechanism.unit == "one row"


@pytest.mark.checklist(36)
def test_the_accountant_that_is_chosen_calibrates_and_is_the_one_reported():
    by_pld = create(accountant="pld")
    spent = by_pld.spent(20)
    assert 2.99 < spent.epsilon_pld <= 3.0 < spent.epsilon_rdp
    assert (spent.accountant, spent.epsilon) == ("pld", spent.epsilon_pld)
    by_rdp = create().spent(20)
    assert (by_rdp.accountant, by_rdp.epsilon) == ("rdp", by_rdp.epsilon_rdp)
    assert by_pld.noise_multiplier < create().noise_multiplier


@pytest.mark.checklist(36)
def test_the_calibrated_mechanism_spends_at_most_its_epsilon_by_both_accountants():
    mechanism = create()
    spent = mechanism.spent(20)
    assert spent.epsilon_pld < spent.epsilon_rdp <= 3.0
    assert spent.epsilon_rdp > 2.99
    assert mechanism.epsilon(10, "rdp") < mechanism.epsilon(21, "rdp")
    assert mechanism.epsilon(21, "rdp") > 3.0


@pytest.mark.checklist(11)
def test_neighbouring_data_sets_get_the_same_divisor():
    assert create(num_examples=1500).divisor == create(num_examples=1501).divisor == 30


@pytest.mark.checklist(9, 43)
def test_noise_on_the_private_gradient_has_stddev_multiplier_times_clip_norm_over_divisor():
    mechanism = create(clip_norm=0.25, noise_multiplier=2.0)
    assert mechanism.noise_stddev == 0.5
    transform = mechanism.gradient_transform(key_from_words((3, 4)))
    zeros = {"w": jnp.zeros(100_000)}
    private, _ = transform.update(zeros, transform.init(zeros))
    assert np.std(private["w"]) == pytest.approx(2.0 * 0.25 / 30, rel=0.01)


def test_infinite_epsilon_runs_the_same_code_without_noise():
    mechanism = create(epsilon=math.inf)
    assert mechanism.noise_multiplier == mechanism.noise_stddev == 0.0
    spent = mechanism.spent(5)
    assert spent.epsilon_rdp == spent.epsilon_pld == math.inf
    transform = mechanism.gradient_transform(jax.random.key(0))
    ones = {"w": jnp.ones(3)}
    private, _ = transform.update(ones, transform.init(ones))
    np.testing.assert_allclose(private["w"], np.ones(3) / 30, rtol=1e-6)


@pytest.mark.checklist(15)
def test_truncated_draws_are_accounted_by_pld_and_never_exceed_the_maximum():
    small = {"num_examples": 100, "steps": 2, "delta": 1e-3, "epsilon": 0.1}
    small["accountant"] = "pld"
    mechanism = create(**small, max_batch_size=31, noise_multiplier=25.0)
    spent = mechanism.spent(2)
    assert spent.epsilon_rdp is None
    assert 0.01 < spent.epsilon_pld <= 0.1
    sizes = [mechanism.sample(streams(1), step).size for step in range(50)]
    assert max(sizes) == 31
    plain = create(**small, noise_multiplier=25.0)
    assert max(plain.sample(streams(1), step).size for step in range(50)) > 31
    assert plain.epsilon(2, "pld") < spent.epsilon_pld
    with pytest.raises(ValueError, match=r"noise_multiplier 10\.0 spends"):
        create(**small, max_batch_size=31, noise_multiplier=10.0)


@pytest.mark.checklist(3)
def test_a_resumed_run_repeats_the_batches_and_the_noise_of_the_uninterrupted_one():
    first, second = create(), create()
    for step in (0, 7):
        np.testing.assert_array_equal(
            first.sample(streams(9), step), second.sample(streams(9), step)
        )
    assert not np.array_equal(first.sample(streams(9), 0), first.sample(streams(9), 7))


@pytest.mark.checklist(10, 11, 14)
def test_a_step_on_an_empty_draw_and_a_step_on_a_full_one_differ_by_the_clipped_sum_alone():
    mechanism = create()
    params = {"w": jnp.zeros((2, 3))}
    rows = {"x": jnp.ones((16, 2))}

    def step(is_padding):
        grad_sum, _ = clipped_grad_sum(
            lambda p, f, b: jnp.sum(b["x"] @ p["w"], axis=1),
            params,
            {},
            rows,
            is_padding,
            clipping=mechanism.clipping,
            engine=CONFIG.engine,
            microbatch_size=CONFIG.microbatch_size,
        )
        transform = mechanism.gradient_transform(jax.random.key(5))
        return grad_sum["w"], transform.update(grad_sum, transform.init(params))[0]["w"]

    empty_sum, empty = step(jnp.ones(16, bool))
    full_sum, full = step(jnp.zeros(16, bool))
    assert not np.any(empty_sum) and np.all(np.asarray(empty) != 0)
    np.testing.assert_allclose(full - empty, full_sum / 30, rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(full_sum) == pytest.approx(16 * 0.5, rel=1e-4)


@pytest.mark.checklist(20)
def test_the_count_in_the_noise_state_is_the_number_of_steps_to_charge():
    mechanism = create()
    transform = mechanism.gradient_transform(jax.random.key(5))
    grads = {"w": jnp.ones(3)}
    state = transform.init(grads)
    for _ in range(4):
        _, state = transform.update(grads, state)
    assert int(state[0].num_updates) == 4
    assert 0 < mechanism.epsilon(4, "rdp") < mechanism.epsilon(5, "rdp")


def test_microbatch_and_engine_do_not_change_the_mechanism():
    assert create(microbatch_size=1, physical_batch_size=5, engine="loop") == create()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": -1.0}, "epsilon is -1.0"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"delta": 1e-3}, "below 1 / number of examples, 0.000667"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"clipping": "flat"}, "Unknown clipping rule 'flat'"),
        ({"expected_batch_size": 0}, "expected_batch_size is 0; give 1 to"),
        ({"expected_batch_size": 1501}, "expected_batch_size is 1501"),
        ({"max_batch_size": 29}, "max_batch_size is 29, below expected_batch_size 30"),
        ({"engine": "magic"}, "Unknown engine 'magic'; choose one of"),
        ({"microbatch_size": 17}, "microbatch_size is 17; give 1 to physical_batch_size, 16"),
        ({"microbatch_size": 0}, "microbatch_size is 0"),
        ({"noise_multiplier": -1.0}, "noise_multiplier is -1.0"),
        ({"noise_multiplier": 0.6}, r"noise_multiplier 0.6 spends epsilon \S+ in 20 steps by rdp"),
        ({"accountant": "gdp"}, r"Unknown accountant 'gdp'; choose one of"),
        ({"max_batch_size": 40}, "rdp accountant does not cover truncated"),
        ({"steps": 0}, "steps is 0"),
        ({"num_examples": 0}, "num_examples is 0"),
    ],
)
def test_a_plan_that_cannot_hold_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        create(**changes)
