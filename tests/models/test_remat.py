"""Rematerialised layers and blocks of attention: the same numbers from less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models.attention import dot_product_attention
from memarc.models.build import build
from memarc.models.head import HeadConfig
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum
from memarc.report.memory import backward_bytes_per_example

HEAD = HeadConfig("mean", 3)
SMALL = {"remat": "layer", "attention_block": 3}


@pytest.mark.parametrize("block", [1, 2, 3, 6, 7, 20])
def test_blocks_of_queries_attend_as_all_do(float64, block):
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.standard_normal((2, 7, 3, 5))) for _ in range(3))
    mask = jnp.arange(7)[None] < jnp.array([[7], [4]])

    def run(block, *inputs):
        return jnp.sum(jnp.sin(dot_product_attention(*inputs, mask=mask, block=block)))

    wanted = jax.value_and_grad(functools.partial(run, 0), argnums=(0, 1, 2))(query, key, value)
    got = jax.value_and_grad(functools.partial(run, block), argnums=(0, 1, 2))(query, key, value)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), got, wanted)


@pytest.mark.checklist(19)
@pytest.mark.parametrize(
    ("method", "engine"),
    [
        pytest.param(method, engine, marks=[pytest.mark.slow] * (engine != often))
        for method, often in (("full", "book_keeping"), ("lora", "vmap"), ("side", "ghost"))
        for engine in ("vmap", "ghost", "book_keeping")
    ],
)
def test_every_engine_gives_the_same_with_layers_computed_again(
    float64, fast_jit, once, sizes, weights, randomise, rows, method, engine
):
    def run(cfg, engine):
        model = build(method, {}, cfg, HEAD)
        start, frozen = model.init(jax.random.key(3), weights(cfg))
        summed = functools.partial(
            clipped_grad_sum,
            model.loss,
            clipping=Clipping(0.7, "abadi"),
            engine=engine,
            microbatch_size=3,
            precompute=model.precompute,
        )
        return fast_jit(summed)(randomise(start, scale=0.1), frozen, rows(), np.arange(5) == 3)

    wanted = once(("not rematerialised", method), lambda: run(sizes(dtype="float64"), "vmap"))
    got = run(sizes(dtype="float64", **SMALL), engine)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted[0]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * largest), got, wanted
    )


@pytest.mark.parametrize("method", ["full", "bitfit", "lora", "adapter", "side"])
def test_little_more_than_each_layers_input_is_kept(sizes, weights, rows, method):
    options = {"reduction": 2, "downsample": "frozen"} if method == "side" else {}

    def kept(**changes):
        cfg = sizes(**changes)
        model = build(method, options, cfg, HEAD)
        start, frozen = jax.eval_shape(model.init, jax.random.key(0), weights(cfg))
        batch = {name: x[:2] for name, x in rows().items()}
        return backward_bytes_per_example(model.loss, model.precompute, start, frozen, batch)

    plain, less = kept(), kept(remat="layer")
    width = 12 if method == "side" else 24
    rungs = 2 if method == "side" else 1  # The state, and what is mixed into it.
    layers = 4 * 7 * width * 4 * rungs
    assert layers <= less <= layers + 10_000 < plain
    assert kept(remat="layer") - kept(remat="layer", layers=3) == layers // 4
