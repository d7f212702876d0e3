"""The witness adds up likelihood ratios of what it sees, and changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from memarc.privacy import noise, witness

RATE, SIGMA, CLIP_NORM, DIVISOR = 0.3, 0.8, 2.0, 5.0
CANARY_COORDINATES = jnp.array([[2.0], [0.0], [1.0]])  # A sum, gradient units.


def watched(sampling_rate=RATE, noise_multiplier=SIGMA):
    return witness.watch(
        lambda tree: tree["canaries"][:, 0],
        scale=CLIP_NORM / DIVISOR,
        sampling_rate=sampling_rate,
        noise_multiplier=noise_multiplier,
    )


@pytest.mark.checklist(37)
def test_two_steps_give_the_log_likelihood_ratio_of_being_in():
    gradient = {"canaries": CANARY_COORDINATES / DIVISOR, "w": jnp.ones(4)}
    chain = optax.chain(
        noise.privatize_sum(stddev=1.6, divisor=5.0, key=jax.random.key(0)), watched()
    )
    state, seen = chain.init(gradient), []
    for _ in range(2):
        private, state = chain.update(gradient, state)
        seen.append(np.asarray(private["canaries"], np.float64)[:, 0] * DIVISOR / CLIP_NORM)
    density = lambda x, mean: scipy.stats.norm.pdf(x, mean, SIGMA)
    ratios = [((1 - RATE) * density(x, 0) + RATE * density(x, 1)) / density(x, 0) for x in seen]
    found = optax.tree.get(state, "log_ratios")
    np.testing.assert_allclose(found, np.log(ratios).sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampling_rate", [RATE, 1.0])
@pytest.mark.parametrize("noise_multiplier", [0.0, SIGMA])
def test_scores_are_finite_and_in_order_without_noise_or_sampling(sampling_rate, noise_multiplier):
    gradient = {"canaries": CANARY_COORDINATES / DIVISOR}
    transform = watched(sampling_rate, noise_multiplier)
    same, state = transform.update(gradient, transform.init(gradient))
    assert same is gradient
    drawn, left_out, half = np.asarray(state.log_ratios)
    assert np.isfinite([drawn, left_out, half]).all() and left_out < half < drawn
