"""What a config will spend, without training."""

import math

import pytest

from memarc.privacy import accounting
from memarc.privacy.sampling import PoissonSampler
from memarc.runs import account
from memarc.runs.parse import parse


def test_the_account_is_that_of_the_run(config):
    (chosen,) = parse(config.to_dict())
    found = account.planned(chosen, None)
    assert (found.units, found.steps, found.batch, found.sampling_rate) == (60, 3, 20, 20 / 60)
    sampler = PoissonSampler(60, 20 / 60, None)
    for accountant, value in (("rdp", found.epsilon_rdp), ("pld", found.epsilon_pld)):
        assert value == accounting.epsilon(
            sampler, noise_multiplier=found.sigma, steps=3, delta=1e-3, accountant=accountant
        )
    assert found.accountant == "pld" and found.epsilon_pld <= 8.0 < found.epsilon_rdp
    config.privacy.accountant = "rdp"
    by_rdp = account.planned(parse(config.to_dict())[0], None)
    assert by_rdp.accountant == "rdp" and by_rdp.epsilon_pld < by_rdp.epsilon_rdp <= 8.0
    assert by_rdp.sigma > found.sigma and by_rdp.seed == "fixed: not private"
    config.seed = None
    assert account.planned(parse(config.to_dict())[0], None).seed == "fresh"


def test_a_given_number_of_rows_spares_the_data(config):
    config.data.train_rows = 10**9  # Would be refused if it were read.
    config.privacy.update(epsilon=8.0, delta=1e-5, expected_batch_size=1000, accountant="rdp")
    config.training.epochs = 10.0
    found = account.planned(parse(config.to_dict())[0], 50_000)
    assert found.steps == 500 and found.sampling_rate == 0.02
    assert found.sigma == pytest.approx(0.689, abs=0.002)  # The published table's row.


def test_truncated_draws_are_covered_by_pld_alone(config):
    config.privacy.update(max_batch_size=25, noise_multiplier=1.5)  # To calibrate takes seconds.
    found = account.planned(parse(config.to_dict())[0], None)
    assert found.epsilon_rdp is None and found.epsilon_pld <= 8.0
    config.privacy.accountant = "rdp"
    with pytest.raises(ValueError, match="rdp accountant does not cover truncated"):
        account.planned(parse(config.to_dict())[0], None)


def test_no_noise_is_infinite_epsilon(config):
    config.privacy.epsilon = math.inf
    found = account.planned(parse(config.to_dict())[0], None)
    assert found.sigma == 0.0 and found.epsilon_rdp == found.epsilon_pld == math.inf
