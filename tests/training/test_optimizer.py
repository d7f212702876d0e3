"""Schedules by hand; the optimizer is optax's; every bad field is named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from memarc.training import optimizer
from memarc.training.optimizer import OptimizerConfig

BASE = OptimizerConfig("adamw", 0.2, "linear", 0.4, 0.1, 0.8, 0.9, 1e-8, 1.0, 0.0)


@pytest.mark.parametrize(
    ("schedule", "warmup", "wanted"),
    [
        ("constant", 0.0, [0.2] * 5),
        ("linear", 0.0, [0.2, 0.16, 0.12, 0.08, 0.04]),
        ("linear", 0.4, [0.1, 0.2, 0.2, 0.2 * 2 / 3, 0.2 / 3]),
        ("constant", 0.2, [0.2] * 5),
        ("cosine", 0.6, [0.2 / 3, 0.4 / 3, 0.2, 0.2, 0.1]),
    ],
)
def test_rates_are_those_computed_by_hand(schedule, warmup, wanted):
    config = dataclasses.replace(BASE, schedule=schedule, warmup_fraction=warmup)
    rate = optimizer.learning_rate(config, 5)
    np.testing.assert_allclose([float(rate(k)) for k in range(5)], wanted, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("schedule", optimizer.SCHEDULES)
def test_no_planned_update_has_rate_zero_or_above_the_peak(steps, warmup, schedule):
    config = dataclasses.replace(BASE, schedule=schedule, warmup_fraction=warmup)
    rate = optimizer.learning_rate(config, steps)
    rates = [float(rate(k)) for k in range(steps)]
    assert all(0 < value <= 0.2 * (1 + 1e-6) for value in rates)


def test_sgd_with_momentum_and_decay_by_hand():
    config = dataclasses.replace(BASE, name="sgd", schedule="constant", warmup_fraction=0.0)
    transform = optimizer.build(config, 3)
    params = jnp.asarray([2.0])
    state = transform.init(params)
    for gradient, wanted in ((1.0, -0.2 * 1.2), (0.0, -0.2 * (0.8 * 1.2 + 0.1 * 1.76))):
        updates, state = transform.update(jnp.asarray([gradient]), state, params)
        np.testing.assert_allclose(updates, [wanted], rtol=1e-6)
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("name", optimizer.NAMES)
def test_decay_spares_biases_and_norms_and_nothing_else(name):
    config = dataclasses.replace(BASE, name=name, schedule="constant", warmup_fraction=0.0)
    names = {"head": ("kernel", "bias"), "tuning": ("a", "up_bias", "scale", "gate")}
    tree = {part: {leaf: jnp.asarray([2.0]) for leaf in leaves} for part, leaves in names.items()}
    transform = optimizer.build(config, 3)
    still = jax.tree.map(jnp.zeros_like, tree)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = transform.update(still, transform.init(tree), tree)
    moved = {leaf for part in updates.values() for leaf, x in part.items() if x[0]}
    assert moved == {"kernel", "a", "gate"}
    np.testing.assert_allclose(updates["head"]["kernel"], [-0.2 * 0.1 * 2.0], rtol=1e-6)


def test_the_head_moves_by_its_factor_and_the_rest_as_before():
    tree = {"head": {"w": jnp.asarray([1.0, -2.0])}, "tuning": {"w": jnp.asarray([3.0])}}
    plain = optimizer.build(BASE, 3)
    scaled = optimizer.build(dataclasses.replace(BASE, head_factor=7.0), 3)
    with jax.numpy_dtype_promotion("standard"):
        wanted, _ = plain.update(tree, plain.init(tree), tree)
        found, _ = scaled.update(tree, scaled.init(tree), tree)
    np.testing.assert_allclose(found["head"]["w"], 7.0 * wanted["head"]["w"], rtol=1e-6)
    np.testing.assert_array_equal(found["tuning"]["w"], wanted["tuning"]["w"])


def test_the_head_moves_alone_for_its_share_of_the_steps():
    """Five steps, share 0.4: two of the head alone; then all move at the schedule's rate."""
    tree = {"head": {"w": jnp.asarray([1.0])}, "tuning": {"w": jnp.asarray([1.0])}}
    transform = optimizer.build(dataclasses.replace(BASE, head_first=0.4), 5)
    state, moved = transform.init(tree), []
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(5):
            updates, state = transform.update(tree, state, tree)
            moved.append([bool(updates[part]["w"][0]) for part in ("head", "tuning")])
            assert not moved[-1][1] or updates["head"]["w"] == updates["tuning"]["w"]
    assert moved == [[True, False]] * 2 + [[True, True]] * 3


@pytest.mark.parametrize("name", optimizer.NAMES)
def test_the_head_is_the_one_at_the_top_whatever_else_stands_there(name):
    """With canaries beside it, and another "head" deeper down, shared leaves move the same."""
    config = dataclasses.replace(BASE, name=name, head_factor=7.0, head_first=0.4)
    transform = optimizer.build(config, 5)
    inner = {"w": jnp.asarray([3.0]), "head": jnp.asarray([-1.0])}
    tree = {"tuning": inner, "head": {"w": jnp.asarray([1.0, -2.0])}}
    more = {**tree, "canaries": jnp.asarray([4.0, 5.0])}
    state, other, moved = transform.init(tree), transform.init(more), []
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(5):
            wanted, state = transform.update(tree, state, tree)
            found, other = transform.update(more, other, more)
            canaries = found.pop("canaries")
            jax.tree.map(np.testing.assert_array_equal, found, wanted)
            moved.append([bool(x[0]) for x in (canaries, found["tuning"]["head"])])
    assert moved == [[False, False]] * 2 + [[True, True]] * 3  # Both are no head.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "adam"),
        ("schedule", "step"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("warmup_fraction", 1.0),
        ("warmup_fraction", -0.1),
        ("weight_decay", -1.0),
        ("beta1", 1.0),
        ("beta2", 1.5),
        ("epsilon", 0.0),
        ("head_factor", 0.0),
        ("head_first", 1.0),
    ],
)
def test_a_bad_field_is_named_with_its_value(field, value):
    with pytest.raises(ValueError, match=rf"optimizer\.{field} is {value!r}"):
        dataclasses.replace(BASE, **{field: value})
