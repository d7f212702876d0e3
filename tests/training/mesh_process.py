"""Prints what clipped sums and noise are on meshes of eight simulated devices, as JSON."""

import functools
import hashlib
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from memarc.models import backbone
from memarc.models.build import build
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.privacy import noise, summation, zeroth_order
from memarc.privacy.clipping import Clipping
from memarc.training import loop, sharding, step
from tests import fast_compile

CONFIG = make_config(
    "bert",
    vocab_size=23,
    width=24,
    layers=2,
    heads=3,
    feed_forward=40,
    max_positions=13,
    norm_epsilon=1e-5,
    activation="gelu",
    dtype="float32",
    type_vocab=2,
    pad_id=0,
)
ROWS, TOKENS, STDDEV = 16, 5, 0.7
OPTIONS = {"side": {"reduction": 2}, "reversible": {"bottleneck": 5}}


def batch():
    """Sixteen rows, of which the last three only fill up: an uneven last microbatch."""
    rng = np.random.default_rng(0)
    shape = (ROWS, TOKENS)
    given = {
        "input_ids": rng.integers(1, 23, shape, np.int32),
        "token_type_ids": rng.integers(0, 2, shape, np.int32),
        "attention_mask": np.ones(shape, np.int32),
        "labels": np.arange(ROWS, dtype=np.int32) % 3,
    }
    return given, np.arange(ROWS) >= ROWS - 3


def randomised(tree, seed):
    """Arrays in host memory, so that no device has drawn them."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: np.asarray(x) + np.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), tree
    )


@functools.lru_cache
def model_of(method):
    """The model, and its parameters (trainable, frozen): the same for all meshes."""
    model = build(method, OPTIONS.get(method, {}), CONFIG, HeadConfig("mean", 3))
    fast = functools.partial(jax.jit, compiler_options=fast_compile.options())
    params = randomised(fast(functools.partial(backbone.init, CONFIG))(jax.random.key(0)), 1)
    trainable, frozen = fast(model.init)(jax.random.key(1), params)
    return model, randomised(trainable, 2), jax.tree.map(np.asarray, frozen)


def problem(method, placement):
    model, trainable, frozen = model_of(method)
    given, _ = batch()
    return loop.Problem(
        loss_fn=model.loss,
        precompute=model.precompute,
        frozen=placement.place_frozen(frozen) if placement else frozen,
        chunks=lambda indices: (),
        shapes={TOKENS: jax.eval_shape(lambda: given)},
        placement=placement,
    ), trainable


def summed(method, engine, placement):
    """The clipped sum of the batch."""
    found, trainable = problem(method, placement)
    settings = step.GradientSettings(Clipping(0.5, "abadi"), engine, 2)
    accumulate = jax.jit(found.accumulate(settings), compiler_options=fast_compile.options())
    total = accumulate(found.zero_sum(trainable), trainable, found.frozen, *batch())
    return jax.tree.map(lambda x: np.asarray(x).sum(0) if placement else np.asarray(x), total.value)


def stepped(method, engine, placement):
    """How far a step without noise moves the parameters along its direction.

    The bound is one that hardly any slope meets, and losses are taken far apart, so that float32
    tells their differences to five digits.
    """
    found, trainable = problem(method, placement)
    settings = step.GradientSettings(Clipping(50.0, "abadi"), engine, 2)
    privatize = noise.privatize_sum(stddev=0.0, divisor=1.0, key=jax.random.key(3))
    optimizer, directions = optax.sgd(1.0), zeroth_order.Directions(jax.random.key(5), 0.5)
    state = step.init_state(trainable, privatize, optimizer, directions)
    update = step.make_update(privatize, optimizer)
    if placement:
        state, update = placement.place_state(state), placement.update(update)
    accumulate, update = (
        jax.jit(part, compiler_options=fast_compile.options())
        for part in (found.accumulate(settings), update)
    )
    total = accumulate(found.zero_sum(state.summed), state.point, found.frozen, *batch())
    after = update(state, total)[0].trainable
    return jax.tree.map(lambda x, start: np.asarray(x) - start, after, trainable)


def noised(placement):
    """The update of zero sums is the noise itself; and the bytes of it on one device."""
    trainable = {"w": jnp.zeros((304, 50)), "b": jnp.zeros(7)}
    privatize = noise.privatize_sum(stddev=STDDEV, divisor=1.0, key=jax.random.key(3))
    optimizer = optax.sgd(1.0)
    state = step.init_state(trainable, privatize, optimizer)
    update = step.make_update(privatize, optimizer)
    parts = summation.zero(trainable)
    if placement:
        state, parts = placement.place_state(state), placement.zero_sum(trainable)
        update = placement.update(update)
    state, _ = jax.jit(update)(state, parts)
    leaves = jax.tree.leaves(state.trainable)
    held = sum(x.addressable_shards[0].data.nbytes for x in leaves)
    return np.concatenate([np.asarray(x).ravel() for x in leaves]), held


def of_noise(placement):
    """What the noise is, and the bytes of kernels and state on one device."""
    values, held = noised(placement)
    kernels = [
        x.addressable_shards[0].data.nbytes
        for path, x in jax.tree_util.tree_leaves_with_path(
            jax.device_put(problem("lora", placement)[0].frozen)
        )
        if "layers" in str(path) and "kernel" in str(path)
    ]
    return {
        "noise": hashlib.sha256(values.tobytes()).hexdigest(),
        "noise_scale": float(values.std() / STDDEV),
        "bytes_of_kernels": sum(kernels),
        "bytes_of_state": held,
    }


def relative(total, first):
    """The relative distance of two sums."""
    return float(optax.tree.norm(optax.tree.sub(total, first)) / optax.tree.norm(first))


def main():
    """Arguments: meshes such as 2x4, and cases such as lora/vmap; without cases it is noise."""
    names = [name for name in sys.argv[1:] if "/" not in name]
    cases = [name for name in sys.argv[1:] if "/" in name]
    found, first = {}, None
    for name in names:
        data, model = map(int, name.removesuffix("cut").split("x"))
        config = sharding.MeshConfig(data, model, "cut" if name.endswith("cut") else "whole")
        placement = sharding.place(config, jax.devices()[: data * model], ROWS)
        if not cases:
            found[name] = of_noise(placement)
            continue
        sums = {
            case: (stepped if case.endswith(zeroth_order.NAME) else summed)(
                *case.split("/"), placement
            )
            for case in cases
        }
        first = sums if first is None else first
        found[name] = {case: relative(total, first[case]) for case, total in sums.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
