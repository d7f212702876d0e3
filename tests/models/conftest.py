"""A small encoder of sizes that all differ, its weights and rows, in float64 where asked for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models.families.known import make_config
from tests import fast_compile
from tests.backbone_shapes import shapes_of

LENGTHS = (7, 5, 1, 6, 3)  # Real tokens per row: B = 5, T = 7.


@pytest.fixture
def float64():
    """64-bit arrays, in which a backbone may compute then: the oracle's precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def fast_jit():
    """Compiles four times faster: these tests run many small programs, once or twice each."""
    return functools.partial(jax.jit, compiler_options=fast_compile.options())


@pytest.fixture(scope="session")
def once():
    """Computes what stands under a key when it is first asked for: oracles of many tests."""
    found = {}

    def get(key, compute):
        if key not in found:
            found[key] = jax.tree.map(np.asarray, compute())
        return found[key]

    return get


@pytest.fixture(scope="session")
def sizes():
    """Makes a config: head width 8, which the default reduction of a side network divides."""
    small = make_config(
        "bert",
        vocab_size=23,
        width=24,
        layers=4,
        heads=3,
        feed_forward=40,
        max_positions=13,
        type_vocab=2,
        norm_epsilon=1e-5,
        activation="gelu",
        pad_id=0,
        dtype="float32",
    )
    return lambda **changes: dataclasses.replace(small, **changes)


@pytest.fixture(scope="session")
def randomise():
    """Draws a tree anew, N(0, scale^2), in the default dtype; norms stay near one."""

    def draw(tree, seed=0, scale=0.3):
        rng = np.random.default_rng(seed)

        def leaf(path, x):
            centre = 1.0 if getattr(path[-1], "key", None) == "scale" else 0.0
            return jnp.asarray(centre + scale * rng.standard_normal(x.shape), dtype=float)

        return jax.tree_util.tree_map_with_path(leaf, tree)

    return draw


@pytest.fixture(scope="session")
def weights(randomise):
    """Draws a backbone's parameters, large enough that a wrong one shows."""

    return lambda cfg: randomise(shapes_of(cfg), seed=1)


@pytest.fixture(scope="session")
def rows():
    """Makes labelled rows padded to T tokens; what stands under the padding is random."""

    def draw(tokens=7, lengths=LENGTHS):
        rng = np.random.default_rng(2)
        mask = np.arange(13)[None, :tokens] < np.asarray(lengths)[:, None]
        shape = (len(lengths), 13)
        return {
            "input_ids": jnp.asarray(rng.integers(1, 23, shape, np.int32)[:, :tokens]),
            "token_type_ids": jnp.asarray(rng.integers(0, 2, shape, np.int32)[:, :tokens]),
            "attention_mask": jnp.asarray(mask.astype(np.int32)),
            "labels": jnp.asarray(np.arange(len(lengths), dtype=np.int32) % 3),
        }

    return draw
