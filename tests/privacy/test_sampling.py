"""Claims about Poisson draws and the derivation of random streams."""

import jax
import numpy as np
import pytest
import scipy.stats

from memarc.privacy import noise, sampling

N, RATE, STEPS = 60, 0.2, 4000


def follows_poisson_sampling(draws, rate):
    """Tests inclusion counts, batch sizes and joint inclusion of pairs, each at level 1e-6."""
    member = np.zeros((len(draws), N), np.int64)
    for step, drawn in enumerate(draws):
        member[step, drawn] = 1
    variance = rate * (1 - rate)
    scores = (member.sum(0) - len(draws) * rate) / np.sqrt(len(draws) * variance)
    rows = scipy.stats.chi2.sf(np.sum(scores**2), N)
    total = scipy.stats.binomtest(int(member.sum()), member.size, rate).pvalue
    sizes = scipy.stats.chi2.sf(
        np.sum((member.sum(1) - N * rate) ** 2) / (N * variance), len(draws)
    )
    spread = min(sizes, 1 - sizes)
    standard = (member - rate) / np.sqrt(variance)
    pairs = (standard.T @ standard / np.sqrt(len(draws)))[np.triu_indices(N, 1)]
    joint = scipy.stats.chi2.sf(np.sum(pairs**2), pairs.size)
    return min(rows, total, spread, joint) > 1e-6


@pytest.fixture(scope="module")
def draws():
    return [sampling.poisson_indices(7, step, N, RATE) for step in range(STEPS)]


@pytest.mark.checklist(13)
def test_rows_join_independently_at_the_stated_rate(draws):
    assert follows_poisson_sampling(draws, RATE)


@pytest.mark.checklist(13)
@pytest.mark.parametrize("claimed", [0.19, 0.21])
def test_the_inclusion_test_rejects_a_rate_off_by_five_percent(draws, claimed):
    assert not follows_poisson_sampling(draws, claimed)


@pytest.mark.checklist(12, 13)
def test_the_inclusion_test_rejects_fixed_size_and_shuffled_batches():
    generator = np.random.default_rng(3)
    fixed = [generator.choice(N, 12, replace=False) for _ in range(STEPS)]
    assert not follows_poisson_sampling(fixed, RATE)
    shuffled = [part for _ in range(STEPS // 5) for part in np.split(generator.permutation(N), 5)]
    assert not follows_poisson_sampling(shuffled, RATE)


def test_a_draw_is_sorted_int64_without_repeats(draws):
    for drawn in draws[:50]:
        assert drawn.dtype == np.int64
        assert np.all(np.diff(drawn) > 0)
        assert drawn.size == 0 or (0 <= drawn[0] and drawn[-1] < N)


@pytest.mark.checklist(3)
def test_a_draw_is_a_pure_function_of_entropy_and_step(draws):
    np.testing.assert_array_equal(sampling.poisson_indices(7, 31, N, RATE), draws[31])
    assert not np.array_equal(sampling.poisson_indices(8, 31, N, RATE), draws[31])
    assert not np.array_equal(draws[30], draws[31])


@pytest.mark.checklist(3, 20)
def test_no_two_steps_of_a_long_run_share_their_draw():
    steps = (0, 1, 255, 256, 4095, 4096, 8192, 65536, 2**20, 2**31)
    found = {sampling.poisson_indices(7, step, N, RATE).tobytes() for step in steps}
    assert len(found) == len(steps)


def test_rate_one_draws_every_row():
    np.testing.assert_array_equal(sampling.poisson_indices(1, 0, N, 1.0), np.arange(N))


@pytest.mark.checklist(14)
def test_an_empty_draw_is_a_valid_draw():
    drawn = sampling.poisson_indices(1, 0, N, 1e-12)
    assert drawn.shape == (0,) and drawn.dtype == np.int64


@pytest.mark.checklist(15)
def test_a_draw_above_the_maximum_is_cut_to_a_uniform_subset(draws):
    cut = [sampling.poisson_indices(7, step, N, RATE, 10) for step in range(STEPS)]
    for whole, part in zip(draws, cut, strict=True):
        assert set(part) <= set(whole)
        assert part.size == min(whole.size, 10)
    counts = np.bincount(np.concatenate(cut), minlength=N)
    # Cut draws are negatively dependent, so the true spread is below this one: conservative.
    rate = counts.sum() / (N * STEPS)
    statistic = np.sum((counts - rate * STEPS) ** 2) / (STEPS * rate * (1 - rate))
    assert scipy.stats.chi2.sf(statistic, N - 1) > 1e-6


def test_the_sampler_object_draws_the_same_rows_as_the_function(draws):
    sampler = sampling.PoissonSampler(N, RATE, None)
    np.testing.assert_array_equal(sampler.indices(7, 5), draws[5])


@pytest.mark.checklist(2, 39)
def test_entropy_is_fresh_by_default_and_a_seed_is_reported_as_reproducible():
    first, is_reproducible = sampling.entropy_from(None)
    second, _ = sampling.entropy_from(None)
    assert first != second and not is_reproducible
    assert max(first.bit_length(), second.bit_length()) > 100
    assert sampling.entropy_from(11) == (11, True)
    assert sampling.entropy_from(0) == (0, True)  # Zero is a seed as any other.


@pytest.mark.checklist(2)
def test_streams_differ_from_each_other_repeat_for_equal_entropy_and_hide_in_repr():
    first, again, other = (sampling.streams(entropy) for entropy in (5, 5, 6))
    assert first == again and first != other
    words = [jax.random.key_data(key).tolist() for key in (first.noise, first.initialisation)]
    assert words[0] != words[1]
    # As of all earlier runs: a checkpoint of one goes on to the same noise.
    assert words == [[3767054407, 1612269649], [3210010690, 401735143]]
    assert first.sampling.bit_length() > 64
    children = np.random.SeedSequence(5).spawn(5)
    for name, child in zip(("sampling", "coins", "canaries"), (0, 3, 4), strict=True):
        own = children[child].generate_state(4, np.uint32)
        assert getattr(first, name) == int.from_bytes(own.tobytes(), "little")
        assert not set(own.tolist()) & {word for pair in words for word in pair}
    directions = jax.random.key_data(first.directions).tolist()
    assert directions == np.random.SeedSequence(5).spawn(6)[5].generate_state(2).tolist()
    assert directions not in words
    assert repr(first) == "Streams()"
    noise.add_gaussian_noise(1.0, first.noise)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.1, None), "num_examples is 0"),
        ((5, 0.0, None), r"sampling_rate is 0.0; give a number in \(0, 1\]"),
        ((5, 1.5, None), "sampling_rate is 1.5"),
        ((5, 0.5, 0), "max_batch_size is 0"),
    ],
)
def test_a_sampler_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sampling.PoissonSampler(*arguments)


def test_negative_steps_and_seeds_are_refused():
    with pytest.raises(ValueError, match="step and entropy"):
        sampling.poisson_indices(1, -1, N, RATE)
    with pytest.raises(ValueError, match="seed is -2"):
        sampling.entropy_from(-2)
