"""Claims about the noise: its law, its keys, its place in the chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from memarc.privacy import noise
from memarc.privacy.clipping import Clipping, clip_and_sum

KEY = jax.random.key(17)
DRAWS = 1_000_000


def noise_of(transform, updates, state=None):
    state = transform.init(updates) if state is None else state
    return transform.update(updates, state)


def looks_like_gaussian(values, stddev):
    """Kolmogorov-Smirnov test at level 1e-6; a wrong scale of 5 % fails it at a million draws."""
    return scipy.stats.kstest(np.asarray(values, np.float64).ravel() / stddev, "norm").pvalue > 1e-6


@pytest.fixture(scope="module")
def million():
    transform = noise.add_gaussian_noise(2.0, KEY)
    return np.asarray(noise_of(transform, {"w": jnp.zeros(DRAWS, jnp.bfloat16)})[0]["w"])


@pytest.mark.checklist(4, 9)
def test_noise_for_bfloat16_parameters_is_a_full_float32_gaussian(million):
    assert million.dtype == np.float32
    assert np.unique(million).size > 10**5
    assert looks_like_gaussian(million, 2.0)
    beyond = np.sum(np.abs(million) > 8.0)  # 4 standard deviations: 63 expected in a million.
    assert 30 < beyond < 105


@pytest.mark.checklist(9)
@pytest.mark.parametrize("claimed", [1.9, 2.1])
def test_the_distribution_test_rejects_noise_off_by_five_percent(million, claimed):
    assert not looks_like_gaussian(million, claimed)


@pytest.mark.checklist(4)
def test_the_distribution_test_rejects_bfloat16_noise():
    low = np.asarray(jax.random.normal(KEY, (DRAWS,), jnp.bfloat16), np.float32)
    assert np.unique(low).size < 1000
    assert not looks_like_gaussian(low, 1.0)


@pytest.mark.checklist(1)
def test_all_noise_values_differ_across_equal_leaves_and_steps():
    updates = {"a": jnp.zeros((40, 5)), "b": {"c": jnp.zeros((40, 5))}, "d": jnp.zeros((40, 5))}
    transform = noise.add_gaussian_noise(1.0, KEY)
    state, values = None, []
    for _ in range(3):
        noised, state = noise_of(transform, updates, state)
        values += [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(noised)]
    values = np.stack(values)
    # A few float32 collisions are chance; shared keys would repeat whole leaves.
    assert np.unique(values).size > 0.999 * values.size
    correlations = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlations).max() < 0.35


@pytest.mark.checklist(1, 19)
@pytest.mark.parametrize("together", [noise.TOGETHER, 7])
def test_every_leaf_is_noised_whatever_its_axes_and_however_many_there_are(monkeypatch, together):
    """Scalars to stacks of kernels, in one draw and in more than a short cycle of keys tells."""
    monkeypatch.setattr(noise, "TOGETHER", together)
    shapes = [(), (3,), (2, 3), (4, 2, 3), (2, 4, 2, 3), *[(2, 5)] * 33]
    updates = {f"{i:02d}": jnp.zeros(shape) for i, shape in enumerate(shapes)}
    noised, _ = noise_of(noise.add_gaussian_noise(1.0, KEY), updates)
    values = np.concatenate([np.ravel(x) for x in jax.tree.leaves(noised)])
    assert np.all(values != 0.0) and np.unique(values).size == values.size
    assert looks_like_gaussian(values, 1.0)


def test_small_neighbours_are_one_draw_and_large_ones_their_own(monkeypatch):
    monkeypatch.setattr(noise, "TOGETHER", 7)
    sizes = (3, 4, 1, 8, 7, 2, 2)
    leaves = [jnp.zeros(size) for size in sizes] + [jnp.zeros(1, jnp.bfloat16), jnp.zeros((0, 2))]
    drawn = noise.normals(KEY, leaves)
    assert [x.shape for x in drawn] == [leaf.shape for leaf in leaves]
    assert all(x.dtype == jnp.float32 for x in drawn)
    for number, group in enumerate([(0, 1), (2,), (3,), (4,), (5, 6, 7, 8)]):
        together = np.concatenate([np.ravel(drawn[i]) for i in group])
        whole = jax.random.normal(jax.random.fold_in(KEY, number), together.shape)
        np.testing.assert_array_equal(together, whole)


@pytest.mark.checklist(4)
def test_a_wide_leaf_is_not_drawn_with_narrow_neighbours():
    with jax.enable_x64(True):
        leaves = [jnp.zeros(size, dtype) for size, dtype in ((3, "f4"), (4, "f8"), (5, "f4"))]
        noised, _ = noise_of(noise.add_gaussian_noise(1.0, KEY), leaves)
    assert [x.dtype for x in noised] == [leaf.dtype for leaf in leaves]
    wide = np.asarray(noised[1])
    assert np.any(wide != wide.astype(np.float32))


@pytest.mark.checklist(1, 20)
def test_no_two_steps_of_a_long_run_share_their_noise():
    transform, updates = noise.add_gaussian_noise(1.0, KEY), {"w": jnp.zeros(7)}
    state, found = transform.init(updates), []
    for step in (0, 1, 2, 255, 256, 257, 4095, 4096, 65535, 65536, 2**24, 2**30):
        noised, _ = transform.update(updates, state._replace(num_updates=jnp.int32(step)))
        found.append(np.asarray(noised["w"]))
    assert np.unique(np.stack(found)).size == 12 * 7


@pytest.mark.checklist(1)
def test_the_key_reuse_checker_finds_nothing_in_two_noised_steps():
    transform = noise.add_gaussian_noise(1.0, KEY)
    updates = {"a": jnp.zeros((3, 2)), "b": jnp.zeros((3, 2))}

    def two_steps(updates, state):
        for _ in range(2):
            updates, state = transform.update(updates, state)
        return updates, state

    def reuses_a_key(key):
        return jax.random.normal(key, (2,)) + jax.random.normal(key, (2,))

    state = transform.init(updates)
    with jax.debug_key_reuse(True):
        jax.jit(two_steps)(updates, state)
        two_steps(updates, state)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.jit(reuses_a_key)(jax.random.key(3))


@pytest.mark.checklist(2)
@pytest.mark.parametrize("key", [None, 0, np.array([0, 1], np.uint32)])
def test_noise_without_a_typed_key_is_refused(key):
    with pytest.raises(ValueError, match="no default key"):
        noise.add_gaussian_noise(1.0, key)


@pytest.mark.checklist(2)
def test_noise_without_a_key_argument_is_refused():
    with pytest.raises(TypeError, match="key"):
        noise.add_gaussian_noise(1.0)
    with pytest.raises(TypeError, match="key"):
        noise.privatize_sum(stddev=1.0, divisor=2.0)


def test_a_key_from_words_uses_both_words():
    keys = [noise.key_from_words(words) for words in ((1, 2), (2, 1), (1, 3), (1, 2))]
    draws = [float(jax.random.normal(key)) for key in keys]
    assert len(set(draws)) == 3 and draws[0] == draws[3]
    with pytest.raises(ValueError, match="two words"):
        noise.key_from_words((1, 2**32))


@pytest.mark.checklist(3)
def test_noise_after_a_resume_equals_that_of_the_uninterrupted_run():
    updates = {"a": jnp.ones((3, 2)), "b": jnp.ones(5)}
    transform = noise.add_gaussian_noise(1.0, KEY)
    update = jax.jit(transform.update)
    state, history = transform.init(updates), []
    for _ in range(4):
        noised, state = update(updates, state)
        history.append(noised)
    resumed = noise.GaussianNoiseState(key=KEY, num_updates=jnp.int32(2))
    for step in (2, 3):
        noised, resumed = update(updates, resumed)
        jax.tree.map(np.testing.assert_array_equal, noised, history[step])
    assert not np.array_equal(history[2]["a"], history[3]["a"])


def test_a_state_may_be_donated_and_the_key_used_again():
    transform = noise.add_gaussian_noise(1.0, KEY)
    updates = {"a": jnp.zeros(4)}
    step = jax.jit(transform.update, donate_argnums=1)
    first, _ = step(updates, transform.init(updates))
    second, _ = step(updates, transform.init(updates))
    np.testing.assert_array_equal(first["a"], second["a"])


@pytest.mark.checklist(5)
def test_noise_on_a_large_bfloat16_sum_changes_nearly_every_entry():
    updates = {"w": jnp.full(10_000, 300.0, jnp.bfloat16)}
    transform = noise.privatize_sum(stddev=0.5, divisor=1.0, key=KEY)
    noised, _ = noise_of(transform, updates)
    assert noised["w"].dtype == jnp.float32
    assert np.mean(np.asarray(noised["w"]) != 300.0) > 0.999


@pytest.mark.checklist(9, 19)
@pytest.mark.parametrize("microbatch_size", [1, 3, 8])
def test_noise_enters_once_a_step_with_stddev_over_divisor(microbatch_size):
    gradients = {"w": jnp.ones((8, 50_000)) * 1e-9}
    clipped_sum = jax.jit(clip_and_sum, static_argnames="clipping")
    total = {"w": jnp.zeros(50_000)}
    for start in range(0, 8, microbatch_size):
        rows = jax.tree.map(lambda g, s=start: g[s : s + microbatch_size], gradients)
        kept = jnp.ones(rows["w"].shape[0], bool)
        part, _, _ = clipped_sum(rows, kept, Clipping(1.0, "abadi"))
        total = jax.tree.map(jnp.add, total, part)
    transform = noise.privatize_sum(stddev=3.0, divisor=4.0, key=KEY)
    private, _ = noise_of(transform, total)
    assert np.std(private["w"]) == pytest.approx(0.75, rel=0.02)
    assert looks_like_gaussian(private["w"], 0.75)


def test_stddev_zero_leaves_the_sum_alone():
    updates = {"w": jnp.arange(5.0)}
    noised, state = noise_of(noise.privatize_sum(stddev=0.0, divisor=2.0, key=KEY), updates)
    np.testing.assert_array_equal(noised["w"], np.arange(5.0) / 2)
    assert state[0].num_updates == 1


@pytest.mark.checklist(14, 20)
def test_an_empty_batch_still_takes_a_noised_step():
    gradients = {"w": jnp.full((4, 6), jnp.nan)}
    transform = noise.privatize_per_example(
        clipping=Clipping(1.0, "abadi"), stddev=2.0, divisor=5.0, key=KEY
    )
    state = transform.init({"w": jnp.zeros(6)})
    padding = jnp.ones(4, bool)
    private, state = transform.update(gradients, state, is_padding=padding)
    plain, _ = noise_of(noise.privatize_sum(stddev=2.0, divisor=5.0, key=KEY), {"w": jnp.zeros(6)})
    np.testing.assert_array_equal(private["w"], plain["w"])
    assert np.all(np.asarray(private["w"]) != 0) and state[0].num_updates == 1


def output_scale_per_row(private_mean, rows):
    """What one unclipped unit row adds to the private gradient of a batch of ``rows`` rows."""
    gradients = {"w": jnp.full((rows, 1), 0.5)}
    return float(private_mean(gradients)["w"][0]) / rows


@pytest.mark.checklist(10)
def test_the_divisor_ignores_the_size_of_the_batch_and_a_realised_one_is_caught():
    transform = noise.privatize_per_example(
        clipping=Clipping(1.0, "abadi"), stddev=0.0, divisor=5.0, key=KEY
    )

    def ours(gradients):
        return noise_of(transform, gradients)[0]

    def realised(gradients):
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)

    def same_scale(private_mean):
        scales = [output_scale_per_row(private_mean, rows) for rows in (3, 4)]
        return scales[0] == pytest.approx(scales[1], rel=1e-6)

    assert same_scale(ours)
    assert output_scale_per_row(ours, 4) == pytest.approx(0.1, rel=1e-6)
    assert not same_scale(realised)


@pytest.mark.checklist(10, 11)
@pytest.mark.parametrize("divisor", [0, -1.0, np.inf, jnp.float32(3.0)])
def test_a_divisor_that_is_not_a_positive_python_number_is_refused(divisor):
    with pytest.raises(ValueError, match="public plan"):
        noise.divide_by(divisor)


@pytest.mark.parametrize("stddev", [-1.0, np.inf, np.nan])
def test_a_negative_or_infinite_stddev_is_refused(stddev):
    with pytest.raises(ValueError, match="stddev is"):
        noise.add_gaussian_noise(stddev, KEY)


def spy():
    """A transformation that keeps what it was given as its state."""
    return optax.GradientTransformation(
        lambda params: params, lambda updates, state, params=None: (updates, updates)
    )


@pytest.mark.checklist(41)
def test_what_follows_in_the_chain_sees_only_noised_values():
    params = {"a": jnp.zeros(50), "b": jnp.zeros((3, 7))}
    grad_sum = jax.tree.map(lambda p: p + 2.0, params)

    def seen_after(*transforms):
        chain = optax.chain(*transforms)
        _, state = chain.update(grad_sum, chain.init(params), params)
        return state[-1]

    def is_noised(seen):
        differs = jax.tree.map(
            lambda s, g: np.all(np.asarray(s) != np.asarray(g) / 4), seen, grad_sum
        )
        return all(jax.tree.leaves(differs))

    private = noise.privatize_sum(stddev=1.0, divisor=4.0, key=KEY)
    assert is_noised(seen_after(private, spy()))
    assert not is_noised(seen_after(noise.divide_by(4.0), spy())), "the test must see its target"


@pytest.mark.checklist(41)
def test_the_optimizer_state_is_that_of_the_noised_gradient_alone():
    params = {"a": jnp.zeros(6)}
    grad_sum = {"a": jnp.arange(6.0)}
    private = noise.privatize_sum(stddev=1.0, divisor=4.0, key=KEY)
    chain = optax.chain(private, optax.adam(1e-3))
    noised, _ = private.update(grad_sum, private.init(params))
    adam = optax.adam(1e-3)
    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction mixes dtypes.
        _, state = chain.update(grad_sum, chain.init(params), params)
        _, expected = adam.update(noised, adam.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, state[1], expected)


@pytest.mark.checklist(34)
def test_the_state_holds_key_and_count_and_nothing_computed_from_data():
    transform = noise.privatize_per_example(
        clipping=Clipping(1.0, "abadi"), stddev=1.0, divisor=2.0, key=KEY
    )
    state = transform.init({"w": jnp.zeros(3)})
    states = [
        transform.update({"w": value * jnp.ones((2, 3))}, state)[1] for value in (0.1, 1000.0)
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(*map(raw, (a, b))), states[0], states[1]
    )


def raw(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def test_per_example_gradients_chain_with_an_optimizer_and_match_the_parts():
    gradients = {"w": jax.random.normal(KEY, (4, 5)), "b": jnp.ones((4, 2, 3))}
    padding = jnp.array([False, True, False, False])
    clipping = Clipping(0.5, "automatic")
    whole = optax.chain(
        noise.privatize_per_example(clipping=clipping, stddev=1.5, divisor=3, key=KEY),
        optax.sgd(1.0),
    )
    params = jax.tree.map(lambda g: jnp.zeros(g.shape[1:]), gradients)
    got, _ = jax.jit(whole.update)(gradients, whole.init(params), params, is_padding=padding)
    grad_sum, _, _ = clip_and_sum(gradients, ~padding, clipping)
    parts = noise.privatize_sum(stddev=1.5, divisor=3, key=KEY)
    expected, _ = parts.update(grad_sum, parts.init(params))
    jax.tree.map(
        lambda g, e: np.testing.assert_allclose(g, -e, rtol=1e-5, atol=1e-6), got, expected
    )
