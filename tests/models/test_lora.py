"""LoRA against merged weights and values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models import backbone, partition
from memarc.models.lora import Lora, LowRankKernel
from memarc.ops.linear import linear


def test_a_low_rank_kernel_adds_scale_times_x_a_b():
    kernel = LowRankKernel(
        base=jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        a=jnp.array([[1.0], [-2.0]]),
        b=jnp.array([[1.0, 0.0, 10.0]]),
        scale=0.5,
    )
    # x @ base = (9, 12, 15); x @ a = -3, so the update is 0.5 * -3 * b = (-1.5, 0, -15).
    got = linear(jnp.array([1.0, 2.0]), kernel, jnp.array([0.0, 100.0, 0.0]))
    np.testing.assert_array_equal(got, [7.5, 112.0, 0.0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank": 3, "alpha": 2.0, "targets": ("attention_output", "intermediate", "output")},
        {"rank": 2, "alpha": 5.0, "targets": ("key",)},
    ],
)
def test_lora_is_the_backbone_with_the_update_merged_into_its_kernels(
    float64, sizes, weights, randomise, rows, fast_jit, options
):
    cfg, batch = sizes(dtype="float64"), rows()
    method, params = Lora(cfg, **options), weights(cfg)
    shapes, _ = jax.eval_shape(method.init, jax.random.key(0), params)
    pairs = randomise(shapes, scale=0.2)
    merged = params
    for name, pair in pairs.items():
        block, dense = {
            "query": ("attention", "query"),
            "key": ("attention", "key"),
            "value": ("attention", "value"),
            "attention_output": ("attention", "output"),
            "intermediate": ("feed_forward", "intermediate"),
            "output": ("feed_forward", "output"),
        }[name]
        path = ("layers", block, dense, "kernel")
        update = np.einsum("lir,lro->lio", pair["a"], pair["b"]) * method.alpha / method.rank
        merged = partition.replace(merged, path, partition.get(merged, path) + update)
    encode = fast_jit(lambda params: backbone.encode(cfg, params, batch))
    wanted, plain = np.asarray(encode(merged)), np.asarray(encode(params))
    frozen = {"backbone": params, "drawn": {}}
    got = fast_jit(method.states)(pairs, frozen, method.precompute(frozen, batch))
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)
    assert np.abs(wanted - plain).max() > 0.1


def test_b_starts_at_zero_and_a_uniform_within_one_over_the_root_of_its_inputs(
    sizes, weights, fast_jit
):
    targets = ("intermediate", "output", "query")
    method = Lora(sizes(), rank=5, targets=targets)
    pairs, _ = fast_jit(method.init)(jax.random.key(1), weights(sizes()))
    pairs = jax.tree.map(np.asarray, pairs)
    inputs = {"intermediate": 24, "output": 40, "query": 24}
    outputs = {"intermediate": 40, "output": 24, "query": 24}
    for name in targets:
        a, b = pairs[name]["a"], pairs[name]["b"]
        assert a.shape == (4, inputs[name], 5) and b.shape == (4, 5, outputs[name])
        assert a.dtype == b.dtype == jnp.float32
        assert not np.any(b)
        bound = inputs[name] ** -0.5
        assert 0.95 * bound < np.abs(a).max() <= bound
        assert abs(np.mean(a)) < 0.15 * bound
    assert len({float(x) for pair in pairs.values() for x in pair["a"].ravel()}) > 1700


def test_with_train_b_the_factor_a_is_drawn_alike_but_frozen(sizes, weights, fast_jit):
    both, b_alone = (
        fast_jit(Lora(sizes(), train=train).init)(jax.random.key(1), weights(sizes()))
        for train in ("both", "b")
    )
    for name in ("query", "value"):
        assert set(b_alone[0][name]) == {"b"} and set(both[0][name]) == {"a", "b"}
        np.testing.assert_array_equal(b_alone[1]["drawn"][name]["a"], both[0][name]["a"])


def test_the_product_of_the_factors_is_never_formed(sizes):
    kernel = LowRankKernel(jnp.zeros((24, 40)), jnp.zeros((24, 3)), jnp.zeros((3, 40)), 1.0)
    program = jax.make_jaxpr(lambda x: linear(x, kernel))(jnp.zeros((2, 7, 24)))
    shapes = [out.aval.shape for step in program.jaxpr.eqns for out in step.outvars]
    assert (2, 7, 3) in shapes and (24, 40) not in shapes
