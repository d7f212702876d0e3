"""Claims about clip factors, norms and the clipped sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.privacy import clipping as clipping_module
from memarc.privacy.clipping import Clipping, clip_factors

RULES = ["abadi", "automatic"]

clip_and_sum = jax.jit(clipping_module.clip_and_sum, static_argnames="clipping")
per_example_norms = jax.jit(clipping_module.per_example_norms)


def tree_norm(tree):
    flat = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    return float(np.linalg.norm(np.concatenate(flat)))


def random_gradients(rows=8, scale=1.0, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    return {
        "kernel": scale * jax.random.normal(keys[0], (rows, 5, 3)),
        "inner": {"bias": scale * jax.random.normal(keys[1], (rows, 7))},
    }


def most_moved_by_one_row(gradients, clipping, summed=clip_and_sum):
    """The largest L2 change of the sum over removals of each single row."""
    rows = jax.tree.leaves(gradients)[0].shape[0]
    whole = summed(gradients, jnp.ones(rows, bool), clipping)[0]
    moves = []
    for row in range(rows):
        without = summed(gradients, jnp.arange(rows) != row, clipping)[0]
        moves.append(
            tree_norm(jax.tree.map(lambda a, b: np.float64(a) - np.float64(b), whole, without))
        )
    return max(moves)


def test_factors_match_values_worked_out_by_hand():
    norms = jnp.array([0.0, 1.0, 2.0, 8.0])
    abadi = clip_factors(norms, Clipping(2.0, "abadi"))
    np.testing.assert_allclose(abadi, [1.0, 1.0, 1.0, 0.25], rtol=2e-5)
    automatic = clip_factors(norms, Clipping(2.0, "automatic"))
    np.testing.assert_allclose(automatic, [200.0, 2 / 1.01, 2 / 2.01, 2 / 8.01], rtol=2e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("norm", [np.inf, np.nan])
def test_a_norm_that_is_not_finite_gets_factor_zero(rule, norm):
    assert clip_factors(jnp.array([norm]), Clipping(1.0, rule))[0] == 0.0


@pytest.mark.checklist(7, 9)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("clip_norm", [0.1, 10.0])
def test_one_example_alone_never_exceeds_the_clip_norm(rule, scale, clip_norm):
    clipping = Clipping(clip_norm, rule)
    for seed in range(5):
        gradients = random_gradients(rows=1, scale=scale, seed=seed)
        clipped, _, is_added = clip_and_sum(gradients, jnp.ones(1, bool), clipping)
        assert is_added.all()
        assert tree_norm(clipped) <= clip_norm
        if rule == "abadi" and scale >= 1e20:
            assert tree_norm(clipped) > 0.999 * clip_norm


@pytest.mark.checklist(9)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1.0, 1e20])
@pytest.mark.parametrize("clip_norm", [0.1, 10.0])
def test_one_example_moves_the_sum_by_at_most_the_stated_sensitivity(rule, scale, clip_norm):
    clipping = Clipping(clip_norm, rule)
    moved = most_moved_by_one_row(random_gradients(scale=scale), clipping)
    assert moved <= clipping.sensitivity * (1 + 1e-5)


@pytest.mark.checklist("19b")
def test_clipping_a_group_mean_is_caught_by_the_sensitivity_test():
    """Negative control: a group of 2 clipped as one moves by up to twice the bound over 2."""

    def clip_group_means(gradients, is_kept, clipping):
        kept = jax.tree.map(
            lambda g: jnp.where(is_kept.reshape(-1, *[1] * (g.ndim - 1)), g, 0.0), gradients
        )
        counts = jnp.maximum(is_kept.reshape(-1, 2).sum(1).astype(jnp.float32), 1.0)
        means = jax.tree.map(
            lambda g: (
                g.reshape(-1, 2, *g.shape[1:]).sum(1) / counts.reshape(-1, *[1] * (g.ndim - 1))
            ),
            kept,
        )
        return clip_and_sum(means, jnp.ones(counts.shape, bool), clipping)

    gradients = {"w": 10.0 * jnp.array([[1.0, 0.0], [-1.1, 0.01], [0.0, 1.0], [0.5, 0.5]])}
    clipping = Clipping(1.0, "abadi")
    assert most_moved_by_one_row(gradients, clipping) <= 1.0 + 1e-5
    assert most_moved_by_one_row(gradients, clipping, clip_group_means) > 1.5


@pytest.mark.checklist(7)
@pytest.mark.parametrize("exponent", range(-30, 31, 6))
def test_norms_are_right_from_1e_minus_30_to_1e30(exponent):
    gradients = random_gradients(scale=10.0**exponent)
    expected = [tree_norm(jax.tree.map(lambda g, i=i: g[i], gradients)) for i in range(8)]
    np.testing.assert_allclose(per_example_norms(gradients), expected, rtol=1e-6)


@pytest.mark.checklist(7)
def test_float16_gradients_of_300_keep_a_finite_norm():
    norms = per_example_norms({"w": jnp.full((2, 3000), 300.0, jnp.float16)})
    np.testing.assert_allclose(norms, 300.0 * np.sqrt(3000), rtol=1e-6)


@pytest.mark.checklist(6)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_4096_unit_gradients_sum_as_in_float64(dtype):
    rows = 4096
    gradients = {"w": jax.random.normal(jax.random.key(1), (rows, 6)).astype(dtype)}
    total, _, _ = clip_and_sum(gradients, jnp.ones(rows, bool), Clipping(1.0, "abadi"))
    exact = np.asarray(gradients["w"], np.float64)
    exact = exact * np.minimum(1, 1 / np.linalg.norm(exact, axis=1, keepdims=True))
    error = np.linalg.norm(np.asarray(total["w"], np.float64) - exact.sum(0))
    assert total["w"].dtype == jnp.float32
    # Relative to the sum of norms; a bfloat16 accumulator is off by about 1e-3 of it.
    assert error <= 1e-5 * np.linalg.norm(exact, axis=1).sum() + 1e-5 * np.linalg.norm(exact.sum(0))


@pytest.mark.checklist(8)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", RULES)
def test_a_bad_row_adds_exactly_nothing_even_if_bad_in_one_entry_of_one_leaf(rule, bad):
    clipping = Clipping(1.0, rule)
    gradients = random_gradients(rows=5)
    clean = jax.tree.map(lambda g: g.at[2].set(0.0), gradients)
    gradients["inner"]["bias"] = gradients["inner"]["bias"].at[2, 3].set(bad)
    total, norms, is_added = clip_and_sum(gradients, jnp.ones(5, bool), clipping)
    expected, _, _ = clip_and_sum(clean, jnp.ones(5, bool), clipping)
    jax.tree.map(np.testing.assert_array_equal, total, expected)
    assert norms[2] == 0.0
    np.testing.assert_array_equal(is_added, [True, True, False, True, True])


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, np.inf, np.nan])
def test_a_clip_norm_that_is_not_positive_and_finite_is_refused(clip_norm):
    with pytest.raises(ValueError, match=r"clip_norm is .*finite number above 0"):
        Clipping(clip_norm, "abadi")


def test_an_unknown_rule_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"rule 'flat'; choose one of \('abadi', 'automatic'\)"):
        Clipping(1.0, "flat")


def test_a_tree_without_leaves_is_refused():
    with pytest.raises(ValueError, match="no leaves"):
        clip_and_sum({}, jnp.ones(2, bool), Clipping(1.0, "abadi"))


def test_groups_are_the_layers_of_stacked_leaves_and_whole_others():
    gradients = {
        "layers": jnp.array([[[3.0, 4.0], [0.0, 1.0]], [[0.3, 0.4], [0.0, np.nan]]]),  # [B, L, I]
        "rest": jnp.array([[0.0], [8.0]]),
    }
    clipping = Clipping(3**0.5 * 2.0, "abadi", "per_layer")  # Three groups of bound 2.
    summed, norms = clipping_module.clip_and_sum_by_group(
        gradients, [(2,), ()], jnp.array([True, True]), clipping
    )
    np.testing.assert_allclose(summed["layers"], [[1.2 + 0.3, 1.6 + 0.4], [0.0, 1.0]], rtol=3e-5)
    np.testing.assert_allclose(summed["rest"], [2.0], rtol=3e-5)
    np.testing.assert_allclose(norms, np.sqrt([26.0, 0.25 + 64.0]), rtol=1e-6)


def test_an_unknown_scope_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="Unknown clipping scope 'group'; choose one of"):
        Clipping(1.0, "abadi", "group")
