"""Claims about epsilon: golden values, closed forms, monotonicity, calibration, refusals."""

import math

import absl.logging
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
from dp_accounting import pld

from memarc.privacy import accounting, calibration
from memarc.privacy.sampling import PoissonSampler

GOLDEN = [  # (n, expected batch, steps, delta, epsilon, noise by RDP, noise by PLD)
    (50_000, 1000, 150, 1e-5, 1, 1.388, 1.269),
    (50_000, 1000, 150, 1e-5, 3, 0.860, 0.797),
    (50_000, 1000, 150, 1e-5, 8, 0.597, 0.561),
    (50_000, 1000, 500, 1e-5, 1, 2.024, 1.880),
    (50_000, 1000, 500, 1e-5, 3, 1.022, 0.964),
    (50_000, 1000, 500, 1e-5, 8, 0.689, 0.655),
    (50_000, 2000, 500, 1e-5, 1, 3.770, 3.481),
    (50_000, 2000, 500, 1e-5, 3, 1.579, 1.483),
    (50_000, 2000, 500, 1e-5, 8, 0.906, 0.864),
    (42_061, 1000, 421, 8e-6, 1, 2.210, 2.051),
    (42_061, 1000, 421, 8e-6, 3, 1.082, 1.020),
    (42_061, 1000, 421, 8e-6, 8, 0.715, 0.680),
    (42_061, 1024, 205, 8e-6, 1, 1.721, 1.599),
    (42_061, 1024, 205, 8e-6, 3, 0.960, 0.897),
    (42_061, 1024, 205, 8e-6, 8, 0.656, 0.618),
    (67_349, 1024, 66, 1e-5, 3, 0.754, 0.688),  # SST-2, one pass.
    (67_349, 1024, 66, 1e-5, 8, 0.523, 0.485),
    (42_061, 1024, 123, 8e-6, 3, 0.900, 0.835),  # E2E, three passes.
    (42_061, 1024, 123, 8e-6, 8, 0.618, 0.580),
]
SOME_GOLDEN = [  # A row of each plan; the others are asked for.
    pytest.param(row, marks=[pytest.mark.slow] * (i % 3 != 1)) for i, row in enumerate(GOLDEN)
]


def poisson(rate=0.02, examples=50_000, max_batch_size=None):
    return PoissonSampler(examples, rate, max_batch_size)


def spend(sampler, noise_multiplier, steps, accountant, delta=1e-5):
    return accounting.epsilon(
        sampler,
        noise_multiplier=noise_multiplier,
        steps=steps,
        delta=delta,
        accountant=accountant,
    )


def analytic_gaussian_epsilon(noise_multiplier, steps, delta):
    """Exact epsilon of composed Gaussians (Balle and Wang 2018, arXiv:1805.06530, theorem 8)."""
    mu = math.sqrt(steps) / noise_multiplier

    def gap(epsilon):
        left = scipy.stats.norm.cdf(mu / 2 - epsilon / mu)
        right = math.exp(epsilon) * scipy.stats.norm.cdf(-mu / 2 - epsilon / mu)
        return left - right - delta

    return scipy.optimize.brentq(gap, 0, 100)


@pytest.mark.checklist(36)
@pytest.mark.parametrize("row", SOME_GOLDEN, ids=str)
def test_rdp_calibration_gives_the_golden_noise_multipliers_and_keeps_the_target(row):
    examples, batch, steps, delta, target, by_rdp, _ = row
    sampler = poisson(batch / examples, examples)
    got = calibration.calibrate_noise(
        sampler, epsilon=target, delta=delta, steps=steps, accountant="rdp"
    )
    assert got == pytest.approx(by_rdp, abs=1.1e-3)
    assert spend(sampler, got, steps, "rdp", delta) <= target
    assert spend(sampler, 0.999 * got, steps, "rdp", delta) > target


@pytest.mark.checklist(36)
@pytest.mark.parametrize("row", GOLDEN[1::3], ids=str)
def test_pld_epsilon_at_the_golden_multiplier_is_the_target_and_below_rdp(row):
    examples, batch, steps, delta, target, _, by_pld = row
    sampler = poisson(batch / examples, examples)
    got = spend(sampler, by_pld, steps, "pld", delta)
    assert got == pytest.approx(target, rel=5e-3)
    assert got < spend(sampler, by_pld, steps, "rdp", delta)


def delta_by_contour(rate, noise_multiplier, steps, epsilon):
    """The delta of removing a row, which no grid of privacy losses and no FFT is asked for.

    It is the integral of M(z)^steps exp(-z epsilon) / (2 pi i z (z + 1)) along a vertical line, M
    the moments of one step's privacy loss (Alghamdi et al. 2023, arXiv:2208.09595, theorem 3.1).
    The line is the one on which the integrand is least, where it falls off fastest.
    """
    x = np.linspace(-40 * noise_multiplier, 60 * noise_multiplier, 10_001)
    tilt = np.log(rate) + (2 * x - 1) / (2 * noise_multiplier**2)
    loss = np.logaddexp(np.log1p(-rate), tilt)  # log of the mixture over N(0, s^2), at x
    log_density = loss + scipy.stats.norm.logpdf(x, scale=noise_multiplier) + np.log(x[1] - x[0])

    def log_integrand(z):
        log_moment = scipy.special.logsumexp(log_density + z * loss)
        return steps * log_moment - z * epsilon - np.log(z * (z + 1))

    line = np.exp(
        scipy.optimize.minimize_scalar(
            lambda log_real: log_integrand(np.exp(log_real)), bounds=(-2, 4), method="bounded"
        ).x
    )
    heights = np.linspace(0, 40, 401)
    values = np.array([np.exp(log_integrand(line + 1j * y)).real for y in heights])
    assert abs(values[-1]) < 1e-3 * values[0]
    return scipy.integrate.trapezoid(values, heights) / np.pi


@pytest.mark.checklist(36)
@pytest.mark.parametrize("row", GOLDEN[-3::2], ids=str)
def test_pld_calibration_gives_the_golden_noise_and_an_integral_of_its_own_the_delta(row):
    examples, batch, steps, delta, target, by_rdp, by_pld = row
    got = calibration.calibrate_noise(
        poisson(batch / examples, examples),
        epsilon=target,
        delta=delta,
        steps=steps,
        accountant="pld",
    )
    assert got == pytest.approx(by_pld, abs=6e-4)
    assert 0.06 < 1 - got / by_rdp < 0.09
    assert 0.99 * delta < delta_by_contour(batch / examples, got, steps, target) <= delta


@pytest.mark.checklist(36)
def test_pld_says_nothing_below_its_least_delta_and_calibration_says_so():
    assert spend(poisson(), 1.0, 66, "pld", accounting.PLD_LEAST_DELTA) < 10
    assert spend(poisson(), 1.0, 66, "pld", 1e-18) == math.inf
    assert spend(poisson(), 1.0, 66, "rdp", 1e-18) < 10
    with pytest.raises(ValueError, match=r"delta is 1e-18; PLD bounds nothing below 1e-14"):
        calibration.calibrate_noise(poisson(), epsilon=8.0, delta=1e-18, steps=66, accountant="pld")


@pytest.mark.checklist(36)
def test_a_grid_ten_times_finer_hardly_lowers_epsilon():
    for noise_multiplier, steps in ((0.5, 66), (1.27, 150)):
        fine = pld.PLDAccountant(accounting._RELATION, value_discretization_interval=1e-4)
        fine.compose(accounting.event(poisson(), noise_multiplier=noise_multiplier, steps=steps))
        exact = fine.get_epsilon(1e-5)
        assert exact <= spend(poisson(), noise_multiplier, steps, "pld") <= 1.0002 * exact


@pytest.mark.checklist(36)
@pytest.mark.parametrize(("noise_multiplier", "steps"), [(1.0, 1), (3.0, 7), (20.0, 100)])
def test_without_sampling_epsilon_is_that_of_the_analytic_gaussian(noise_multiplier, steps):
    exact = analytic_gaussian_epsilon(noise_multiplier, steps, 1e-5)
    by_pld = spend(poisson(1.0), noise_multiplier, steps, "pld")
    assert by_pld == pytest.approx(exact, abs=1e-3)
    assert exact <= by_pld <= spend(poisson(1.0), noise_multiplier, steps, "rdp")


def rdp_epsilon_at_integer_orders(rate, noise_multiplier, steps, delta):
    """Mironov et al. 2019, arXiv:1908.10530, eq. (9), summed directly over integer orders."""
    best = math.inf
    for order in range(2, 64):
        log_terms = [
            math.log(math.comb(order, k) * (1 - rate) ** (order - k) * rate**k)
            + (k * k - k) / (2 * noise_multiplier**2)
            for k in range(order + 1)
        ]
        rdp = steps * scipy.special.logsumexp(log_terms) / (order - 1)
        best = min(best, rdp + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))
    return best


@pytest.mark.checklist(36)
@pytest.mark.parametrize("noise_multiplier", [0.9, 1.7, 4.0])
def test_rdp_agrees_with_an_independent_sum_over_integer_orders(noise_multiplier):
    ours = spend(poisson(), noise_multiplier, 500, "rdp")
    independent = rdp_epsilon_at_integer_orders(0.02, noise_multiplier, 500, 1e-5)
    assert independent * 0.97 <= ours <= independent + 1e-9


@pytest.mark.checklist(36)
@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
def test_epsilon_falls_with_noise_and_rises_with_rate_and_steps(accountant):
    base = spend(poisson(), 1.5, 50, accountant)
    assert spend(poisson(), 1.6, 50, accountant) < base
    assert spend(poisson(0.03), 1.5, 50, accountant) > base
    assert spend(poisson(), 1.5, 60, accountant) > base


@pytest.mark.checklist(36)
@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
def test_no_steps_cost_nothing_and_no_noise_costs_everything(accountant):
    assert spend(poisson(), 1.0, 0, accountant) == 0.0
    assert spend(poisson(), 0.0, 0, accountant) == 0.0
    assert spend(poisson(), 0.0, 3, accountant) == math.inf
    sampler = poisson()
    infinite = calibration.calibrate_noise(
        sampler, epsilon=math.inf, delta=1e-5, steps=3, accountant=accountant
    )
    assert infinite == 0.0


@pytest.mark.checklist(36)
@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
@pytest.mark.parametrize("target", [0.02, 1e3, 1e6])
def test_calibration_keeps_unusual_targets_too(target, accountant):
    noise_multiplier = calibration.calibrate_noise(
        poisson(), epsilon=target, delta=1e-5, steps=20, accountant=accountant
    )
    assert spend(poisson(), noise_multiplier, 20, accountant) <= target
    if target == 1e6:  # No less noise is ever given.
        assert noise_multiplier == 2.0**-6
    else:
        assert spend(poisson(), noise_multiplier, 20, accountant) >= 0.998 * target


@pytest.mark.checklist(36)
def test_pld_calibration_keeps_its_target_tightly():
    noise_multiplier = calibration.calibrate_noise(
        poisson(0.1), epsilon=0.5, delta=1e-5, steps=3, accountant="pld"
    )
    assert 0.498 < spend(poisson(0.1), noise_multiplier, 3, "pld") <= 0.5


def test_epsilon_of_the_noise_that_was_calibrated_is_not_computed_again():
    promise = {"steps": 4, "delta": 1e-5, "accountant": "pld"}
    found = calibration.calibrate_noise(poisson(0.1), epsilon=0.6, **promise)
    computed = accounting._composed_epsilon.cache_info().misses
    assert accounting.epsilon(poisson(0.1), noise_multiplier=found, **promise) <= 0.6
    assert accounting._composed_epsilon.cache_info().misses == computed


@pytest.mark.checklist(36)
@pytest.mark.parametrize(("coarser", "can_bracket"), [(8, True), (2**12, False)])
def test_the_noise_does_not_depend_on_the_grid_where_its_search_begins(
    monkeypatch, coarser, can_bracket
):
    """A grid 2**12 times coarser says of 3,000 steps that no noise is enough."""
    found = []
    for grid in (1, coarser):
        monkeypatch.setitem(calibration._COARSER, "pld", grid)
        found.append(
            calibration.calibrate_noise(
                poisson(0.002), epsilon=0.3, delta=1e-5, steps=3000, accountant="pld"
            )
        )
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert 0.2998 < spend(poisson(0.002), found[1], 3000, "pld") <= 0.3
    rough = calibration._Promise(poisson(0.002), 0.3, 1e-5, 3000, "pld", coarser)
    assert (calibration._bracket(rough) is not None) == can_bracket


def test_a_target_that_no_noise_reaches_is_refused(monkeypatch):
    monkeypatch.setattr(calibration, "_MOST_NOISE", 4.0)
    with pytest.raises(ValueError, match=r"No noise multiplier reaches epsilon 0\.001"):
        calibration.calibrate_noise(
            poisson(0.5), epsilon=1e-3, delta=1e-9, steps=1, accountant="rdp"
        )


@pytest.mark.checklist(36)
def test_little_noise_does_not_ask_pld_for_much_memory():
    assert spend(poisson(), 0.05, 1, "pld") > 100


@pytest.mark.checklist(36)
def test_only_the_harmless_warning_is_silenced_and_lost_precision_is_an_error(caplog):
    with accounting._quiet_rdp():
        absl.logging.warning("_compute_log_a_frac failed to converge after %d iterations", 1000)
        absl.logging.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
    with pytest.raises(ArithmeticError, match="lost all precision"), accounting._quiet_rdp():
        absl.logging.warning("Negative Renyi divergence of %s, probably", -1e-20)


@pytest.mark.checklist(15)
def test_truncated_sampling_costs_more_and_only_pld_covers_it():
    truncated = poisson(0.1, examples=300, max_batch_size=35)
    plain = poisson(0.1, examples=300)
    assert spend(truncated, 2.0, 10, "pld", 1e-4) > 1.01 * spend(plain, 2.0, 10, "pld", 1e-4)
    assert not accounting.supports(truncated, "rdp")
    with pytest.raises(ValueError, match="rdp accountant does not cover truncated"):
        spend(truncated, 2.0, 10, "rdp", 1e-4)


@pytest.mark.checklist(15)
def test_a_maximum_that_no_draw_can_pass_is_plain_poisson_sampling():
    assert accounting.supports(poisson(0.1, examples=30, max_batch_size=30), "rdp")


@pytest.mark.checklist(12)
def test_the_event_is_made_from_the_sampler_and_an_alien_sampler_is_refused():
    one = accounting.event(poisson(0.25), noise_multiplier=1.5, steps=7)
    assert one.count == 7
    assert one.event.sampling_probability == 0.25
    assert one.event.event.noise_multiplier == 1.5

    class ShuffledBatches:
        num_examples, sampling_rate, max_batch_size = 50_000, 0.02, None

    with pytest.raises(ValueError, match="No accounting is known for a ShuffledBatches"):
        accounting.event(ShuffledBatches(), noise_multiplier=1.0, steps=1)
    with pytest.raises(ValueError, match="No accounting is known"):
        spend(ShuffledBatches(), 1.0, 1, "rdp")


@pytest.mark.checklist(35)
@pytest.mark.parametrize("accountant", accounting.ACCOUNTANTS)
def test_the_accountant_charges_sensitivity_c_not_2c(accountant):
    """Adding or removing one row of norm C against noise s C is one Gaussian of multiplier s."""
    add_remove = analytic_gaussian_epsilon(4.0, 1, 1e-5)
    replace = analytic_gaussian_epsilon(2.0, 1, 1e-5)
    got = spend(poisson(1.0), 4.0, 1, accountant)
    assert add_remove <= got < 0.7 * replace


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accountant": "gdp"}, r"Unknown accountant 'gdp'; choose one of \('rdp', 'pld'\)"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"steps": -1}, "steps is -1"),
        ({"noise_multiplier": -0.5}, "noise_multiplier is -0.5"),
        ({"noise_multiplier": math.nan}, "noise_multiplier is nan"),
    ],
)
def test_epsilon_refuses_arguments_out_of_range(change, message):
    arguments = {"noise_multiplier": 1.0, "steps": 1, "delta": 1e-5, "accountant": "rdp"}
    with pytest.raises(ValueError, match=message):
        accounting.epsilon(poisson(), **(arguments | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_calibration_refuses_arguments_out_of_range(change, message):
    arguments = {"epsilon": 1.0, "steps": 1, "delta": 1e-12, "accountant": "rdp"}
    with pytest.raises(ValueError, match=message):
        calibration.calibrate_noise(poisson(0.5), **(arguments | change))
