"""Rematerialised layers and blocks of attention: the same numbers from less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models import backbone
from memarc.models.attention import dot_product_attention
from memarc.models.build import build
from memarc.models.head import HeadConfig
from memarc.ops.flops import matrix_flops
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum
from memarc.report.memory import backward_bytes_per_example
from tests.models import by_row

HEAD = HeadConfig("mean", 3)
SMALL = {"remat": "layer", "attention_block": 3}


def test_blocks_of_queries_attend_as_all_do(float64, fast_jit):
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((2, 7, 3, 5)) for _ in range(3)]  # Query, key, value.
    mask = np.arange(7) < np.array([[7], [4]])

    def run(block, *inputs):
        return jnp.sum(jnp.sin(dot_product_attention(*inputs, mask=mask, block=block)))

    @fast_jit
    def by_block(*inputs):
        return {
            block: jax.value_and_grad(functools.partial(run, block), argnums=(0, 1, 2))(*inputs)
            for block in (0, 1, 2, 3, 6, 7, 20)
        }

    found = by_block(*inputs)
    wanted = found.pop(0)  # Not in blocks.
    for block, got in found.items():
        jax.tree.map(
            lambda a, b, block=block: np.testing.assert_allclose(
                a, b, rtol=1e-12, atol=1e-12, err_msg=f"{block}"
            ),
            got,
            wanted,
        )


# Each engine of taps once, on the layers of a backbone and on a side network's.
OFTEN = (("full", "book_keeping"), ("side", "ghost"))


@pytest.mark.checklist(19)
@pytest.mark.parametrize(
    ("method", "engine"),
    [
        pytest.param(method, engine, marks=[pytest.mark.slow] * ((method, engine) not in OFTEN))
        for method in ("full", "lora", "side")
        for engine in ("vmap", "ghost", "book_keeping")
    ],
)
def test_every_engine_gives_the_same_with_layers_computed_again(
    float64, fast_jit, once, sizes, weights, randomise, rows, method, engine
):
    plain, again = (
        build(method, {}, sizes(dtype="float64", **changes), HEAD) for changes in ({}, SMALL)
    )

    def begin():
        return fast_jit(plain.init)(jax.random.key(3), weights(sizes(dtype="float64")))

    start, frozen = once(("start", method), begin)
    given = randomise(start, scale=0.1), frozen, rows()
    found = once(
        ("not rematerialised", method),
        lambda: fast_jit(functools.partial(by_row.gradients, plain))(*given),
    )
    left_out = np.arange(5) == 3
    bound = float(np.median(by_row.norms(found)))  # Some rows are clipped and some are not.
    wanted = by_row.clipped(found, bound, left_out)
    summed = functools.partial(
        clipped_grad_sum,
        again.loss,
        clipping=Clipping(bound, "abadi"),
        engine=engine,
        microbatch_size=3,
        precompute=again.precompute,
    )
    got = fast_jit(summed)(*given, left_out)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted[0]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * largest), got, wanted
    )


@pytest.fixture
def kept(sizes, rows):
    """``(method, options, changes of sizes) -> bytes`` that differentiation keeps of a row."""

    def count(method, options, **changes):
        cfg = sizes(**changes)
        model = build(method, options, cfg, HEAD)
        key = jax.random.key(0)
        start, frozen = jax.eval_shape(lambda: model.init(key, backbone.init(cfg, key)))
        batch = {name: x[:2] for name, x in rows().items()}
        return backward_bytes_per_example(model.loss, model.precompute, start, frozen, batch)

    return count


@pytest.mark.parametrize("method", ["full", "bitfit", "lora", "adapter", "side"])
def test_little_more_than_each_layers_input_is_kept(kept, method):
    options = {"reduction": 2, "downsample": "frozen"} if method == "side" else {}
    plain, less = kept(method, options), kept(method, options, remat="layer")
    width = 12 if method == "side" else 24
    rungs = 2 if method == "side" else 1  # The state, and what is mixed into it.
    layers = 4 * 7 * width * 4 * rungs
    assert layers <= less <= layers + 10_000 < plain
    assert less - kept(method, options, remat="layer", layers=3) == layers // 4


@pytest.mark.parametrize("method", ["full", "bitfit", "lora"])
def test_else_the_results_of_its_linear_maps_are_kept_and_nothing_between(kept, method):
    """A layer's input, queries, keys and values, and what three more maps give: [7, 24] or 40.

    LoRA has two maps more, to rank 8, beside those of queries and values.
    """
    a_layer = kept(method, {}) - kept(method, {}, layers=3)
    assert a_layer == 4 * 7 * (24 + 3 * 24 + 24 + 40 + 24 + 16 * (method == "lora"))


@pytest.mark.parametrize(("engine", "pull_backs"), [("vmap", 1), ("ghost", 2)])
def test_no_linear_map_is_computed_again(sizes, weights, rows, engine, pull_backs):
    """Whole layers computed again cost their six maps more, and contexts that a map reads."""

    def work(remat):
        cfg = sizes(remat=remat)
        model = build("bitfit", {}, cfg, HEAD)
        start, frozen = model.init(jax.random.key(0), weights(cfg))
        summed = functools.partial(
            clipped_grad_sum,
            model.loss,
            clipping=Clipping(1.0, "abadi"),
            engine=engine,
            microbatch_size=5,
        )
        return matrix_flops(summed, start, frozen, rows(), np.zeros(5, bool))

    maps, contexts = 4 * 24 * 24 + 2 * 24 * 40, 7 * 24
    a_pass = 4 * 5 * 7 * 2 * (maps + contexts)
    assert work("layer") - work("none") == pull_backs * a_pass
