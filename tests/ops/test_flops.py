"""Claims about counted operations: written-out counts, loops and branches."""

import jax
import jax.numpy as jnp
import pytest

from memarc.ops.flops import gathered_bytes, matrix_flops


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


def test_gathers_count_what_one_device_receives_and_products_of_its_own_rows():
    mesh = jax.sharding.AbstractMesh((4,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, cut = jax.sharding.PartitionSpec("model"), jax.sharding.PartitionSpec(None, "model")

    def local(x, kernels):
        def layer(x, kernel):  # [2, 8] @ [8, 8], of which a device holds [8, 2].
            return x @ jax.lax.all_gather(kernel, "model", axis=1, tiled=True), None

        return jax.lax.scan(layer, x, kernels)[0]

    step = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(rows, jax.sharding.PartitionSpec(None, *cut)),
        out_specs=rows,
        check_vma=False,
    )
    given = jax.ShapeDtypeStruct((8, 8), "float32"), jax.ShapeDtypeStruct((3, 8, 8), "float32")
    assert gathered_bytes(step, *given) == 3 * 4 * (8 * 8 - 8 * 2)
    assert matrix_flops(step, *given) == 3 * 2 * 2 * 8 * 8
