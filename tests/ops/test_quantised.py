"""Kernels in blocks: rounding by hand, the map of the widened matrix, and nothing wide is kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.ops import quantised
from memarc.ops.linear import linear
from memarc.ops.quantised import QuantisedKernel, quantise


def test_four_bits_by_hand():
    """Blocks of 2 of 3 outputs: the largest value is -8 scales, the others round, zero stays."""
    values = jnp.array([[4.0, 0.0, -1.0], [-1.3, 0.0, 0.9], [0.1, 2.0, 8.0], [0.8, 2.0, -16.0]])
    found = quantise(values, "int4", 2)
    np.testing.assert_array_equal(
        found.scales, jnp.array([[-0.5, 0, 0.125], [-0.1, -0.25, 2.0]], jnp.bfloat16)
    )
    codes = [[-8, 0, -8], [3, 0, 7], [-1, -8, 4], [-8, -8, -8]]
    np.testing.assert_array_equal(found.codes.astype(jnp.int32), codes)
    wanted = [[4, 0, -1], [-1.5, 0, 0.875], [0.1, 2, 8], [0.8, 2, -16]]
    np.testing.assert_allclose(found.values(), wanted, rtol=2**-8)


@pytest.mark.parametrize(("dtype", "step"), [("int8", 1 / 127), ("int4", 1 / 8)])
def test_every_value_is_within_half_a_step_of_its_block(dtype, step):
    """Half a step of the largest value; twice that at the end of four bits, which has no +8."""
    values = jnp.asarray(np.random.default_rng(0).standard_normal((3, 15, 7)), jnp.float32)
    found = quantise(values, dtype, 5)
    assert found.codes.dtype == dtype and found.scales.shape == (3, 3, 7)
    blocks = np.asarray(values).reshape(3, 3, 5, 7)
    error = np.abs(np.asarray(found.values()).reshape(blocks.shape) - blocks)
    largest = np.abs(blocks).max(2, keepdims=True)
    bound = step * largest * (1.0 if dtype == "int4" else 0.5) + 2**-8 * largest
    assert (error <= bound).all() and error.max() > 0


def test_the_map_and_its_cotangent_are_those_of_the_values():
    rng = np.random.default_rng(1)
    kernel = quantise(jnp.asarray(rng.standard_normal((6, 5)), jnp.float32), "int4", 3)
    shifted = QuantisedKernel(kernel.codes, kernel.scales, kernel.scales * 0.5)
    x, bias = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((2, 4, 6), (5,)))
    for one in (kernel, shifted):
        for given in (x, x.astype(jnp.bfloat16)):
            plain = one.values().astype(given.dtype)
            got, pullback = jax.vjp(lambda x, k=one: linear(x, k, bias), given)
            wanted, wanted_pullback = jax.vjp(lambda x, k=plain: linear(x, k, bias), given)
            np.testing.assert_array_equal(got, wanted)
            np.testing.assert_array_equal(pullback(got)[0], wanted_pullback(got)[0])
    assert not np.array_equal(linear(x, kernel), linear(x, shifted))


def test_a_scan_keeps_no_wide_matrix_for_its_backward_pass():
    """The one control: a kernel that is widened outside `linear` is kept, all layers of it."""
    kernels = jax.eval_shape(lambda: quantise(jnp.zeros((4, 6, 5)), "int8", 3))
    vectors = jax.ShapeDtypeStruct((4, 5), jnp.float32)

    def loss(apply, vectors, kernels):
        def step(x, layer):
            kernel, vector = layer
            return jnp.pad(jnp.tanh(apply(x, kernel) + vector[None]), ((0, 0), (0, 1))), None

        return jax.lax.scan(step, jnp.ones((2, 6)), (kernels, vectors))[0].sum()

    def stacks(apply):
        program = jax.make_jaxpr(jax.grad(functools.partial(loss, apply)))(vectors, kernels)
        scans = [e for e in program.jaxpr.eqns if e.primitive.name == "scan"]
        assert len(scans) == 2  # Forward and backward.
        return [x.aval.shape for x in scans[0].outvars if x.aval.shape == (4, 6, 5)]

    assert not stacks(linear)
    assert stacks(lambda x, kernel: linear(x, kernel.values()))


def test_blocks_that_do_not_divide_say_which_do():
    with pytest.raises(
        ValueError, match=r"storage_block is 32, .* of 24 inputs; give one of \[8, 24"
    ):
        quantise(jnp.zeros((24, 3)), "int8", 32)


def test_only_kernels_of_layers_become_blocks():
    layers = {"query": {"kernel": jnp.ones((2, 6, 5)), "bias": jnp.ones((2, 5))}}
    found = quantised.in_blocks(layers, "int8", 3)
    assert quantised.is_quantised(found["query"]["kernel"])
    assert found["query"]["bias"] is layers["query"]["bias"]
    wide = quantised.widened(found)
    np.testing.assert_allclose(wide["query"]["kernel"], 1.0, rtol=2**-8)
