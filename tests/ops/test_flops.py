"""Claims about counted operations: written-out counts, loops and branches."""

import jax
import jax.numpy as jnp
import pytest

from memarc.ops.flops import matrix_flops


def product(x, y):
    return x @ y


def looped(x, y):
    return jax.lax.scan(lambda c, _: (c @ y, None), x, None, length=5)[0]


def branched(x, y):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ y, lambda: x)


def batched(x, y):
    return jnp.einsum("btk,bks->bts", jnp.stack([x] * 4), jnp.stack([y] * 4))


@pytest.mark.parametrize(
    ("function", "times"), [(product, 1), (looped, 5), (branched, 1), (batched, 4)]
)
def test_every_product_counts_two_operations_a_multiplication_as_often_as_it_runs(function, times):
    x, y = jnp.ones((3, 7)), jnp.ones((7, 7))
    assert matrix_flops(function, x, y) == times * 2 * 3 * 7 * 7


def test_rematerialised_work_counts_again():
    def loss(wrap, x):
        def layer(x):
            return jnp.sin(x @ jnp.ones((7, 7)))

        return jnp.sum(wrap(layer)(x) ** 2)

    x, one = jnp.ones((3, 7)), 2 * 3 * 7 * 7
    assert matrix_flops(jax.grad(lambda x: loss(lambda f: f, x)), x) == 2 * one
    assert matrix_flops(jax.grad(lambda x: loss(jax.checkpoint, x)), x) == 3 * one
