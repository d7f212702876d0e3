"""What rounding costs where private training leads: in gradients, and in the bound of norms.

Axes: B batch, T tokens, L layers.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from memarc.batches import INPUT_IDS, LABELS
from memarc.measure.inspect import Opened
from memarc.models.build import build
from memarc.models.classifier import Classifier
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig, LanguageModel
from memarc.ops.precision import wide
from memarc.ops.taps import How
from memarc.ops.uses import NeedsTaps, attach, find_places
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum
from memarc.training import optimizer
from memarc.training.optimizer import OptimizerConfig
from memarc.typing import Array, Batch, Params

STEPS, RATE, NOISE = 10, 1e-3, 0.6
"""Updates that are made first, Adam's rate, and the noise multiplier, as of short private runs."""


def measure(model: Opened, method: str, options: dict[str, Any], batch: Batch) -> dict[str, Any]:
    """Compares gradients of the mean loss after some noised, clipped updates in float32.

    Args:
      model: A backbone.
      method: Name of a tuning method.
      options: Its options.
      batch: Public rows, of both kinds of task.

    Returns:
      method; cosine and relative_error of the whole gradient in bfloat16 against float32;
      errors_by_leaf, the same relative error of every leaf; adapter_size, the root mean square
      of all that the updates have moved; allowance and allowances_by_leaf (`allowances`).
    """
    batch = {**batch, LABELS: np.arange(len(batch[INPUT_IDS]), dtype=np.int32) % 2}
    wide = _built(model, method, options, "float32")
    start, frozen = wide.init(jax.random.key(0), model.params)
    trainable = _updated(wide, start, frozen, batch)
    low = _built(model, method, options, "bfloat16")
    wanted, got = (_gradient(x, trainable, frozen, batch) for x in (wide, low))
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(wanted)]
    pairs = list(zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True))
    all_got, all_wanted = (
        np.concatenate([np.ravel(x) for x in xs]) for xs in zip(*pairs, strict=True)
    )
    moved = [
        np.ravel(a - b)
        for a, b in zip(jax.tree.leaves(trainable), jax.tree.leaves(start), strict=True)
    ]
    return {
        "method": method,
        "cosine": round(float(all_got @ all_wanted / _size(all_got) / _size(all_wanted)), 6),
        "relative_error": _error(all_got, all_wanted),
        "errors_by_leaf": {name: _error(a, b) for name, (a, b) in zip(names, pairs, strict=True)},
        "adapter_size": _short(_size(np.concatenate(moved)) / np.sqrt(sum(map(len, moved)))),
        **allowances(wide, trainable, frozen, batch),
    }


def allowances(
    model: Classifier | LanguageModel, trainable: Params, frozen: Params, batch: Batch
) -> dict[str, Any]:
    """By how much norms without gradients exceed those of gradients that are formed.

    A norm whose sum may be rounded otherwise has an allowance (`memarc.ops.precision`), which a
    clipped row loses of its bound. What both programs round otherwise is in the excess too.

    Returns:
      allowance, the greatest excess of a row's norm, as a share of it; and allowances_by_leaf, the
      same of each leaf by itself, the greatest over layers and rows. Both are None where the loss
      does not take taps.
    """
    prepared = jax.jit(model.precompute)(frozen, batch)
    try:
        places = find_places(model.loss, trainable, frozen, prepared)
    except NeedsTaps:
        return {"allowance": None, "allowances_by_leaf": None}
    count = len(batch[INPUT_IDS])
    zeros = [
        jnp.zeros((*x.stack, count), wide(x.use.output.dtype)) if x.use else () for x in places
    ]

    @jax.jit
    def without(trainable: Params, frozen: Params, prepared: Batch) -> list[Array]:
        def losses(taps: list[Any]) -> Array:
            return model.loss(attach(trainable, taps, How("norms")), frozen, prepared)

        found, pull = jax.vjp(losses, zeros)
        return pull(jnp.ones_like(found))[0]

    @jax.jit
    def formed(trainable: Params, frozen: Params, prepared: Batch) -> list[Array]:
        def loss(trainable: Params, row: Batch) -> Array:
            return model.loss(trainable, frozen, jax.tree.map(lambda x: x[None], row))[0]

        found = jax.vmap(jax.grad(loss), (None, 0))(trainable, prepared)
        leaves = zip(places, jax.tree.leaves(found), strict=True)
        return [
            jnp.moveaxis(jnp.sum(jnp.square(x), tuple(range(1 + len(place.stack), x.ndim))), 0, -1)
            for place, x in leaves
        ]

    given = (trainable, frozen, prepared)
    with jax.default_matmul_precision("highest"):
        both = zip(places, without(*given), formed(*given), strict=True)
    pairs = {
        place.path: (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for place, a, b in both
        if place.use
    }
    whole = zip(*pairs.values(), strict=True)
    rows = [np.sum([x.reshape(-1, count).sum(0) for x in xs], axis=0) for xs in whole]
    return {
        "allowance": _excess(*rows),
        "allowances_by_leaf": {name: _excess(a, b) for name, (a, b) in pairs.items()},
    }


def _built(
    model: Opened, method: str, options: dict[str, Any], dtype: str
) -> Classifier | LanguageModel:
    """The model in a compute dtype; a decoder writes, an encoder classifies."""
    config = dataclasses.replace(model.config, dtype=dtype)
    if config.parts.is_decoder:
        return build(method, options, config, LanguageConfig())
    return build(method, options, config, HeadConfig("mean", 2))


def _updated(
    model: Classifier | LanguageModel, trainable: Params, frozen: Params, batch: Batch
) -> Params:
    """Trainable parameters after `STEPS` clipped and noised updates on the rows."""
    rows, clipping = len(batch[INPUT_IDS]), Clipping(1.0)
    optimize = optimizer.build(OptimizerConfig(learning_rate=RATE, warmup_fraction=0.0), STEPS)

    @jax.jit
    def step(trainable: Params, state: Any, frozen: Params, key: Array) -> tuple[Params, Any]:
        total, _ = clipped_grad_sum(
            model.loss,
            trainable,
            frozen,
            batch,
            jnp.zeros(rows, bool),
            clipping=clipping,
            engine="vmap",
            microbatch_size=1,
            precompute=model.precompute,
        )
        leaves, tree = jax.tree.flatten(total)
        keys = jax.random.split(key, len(leaves))
        noised = [
            (x + NOISE * jax.random.normal(k, x.shape)) / rows
            for x, k in zip(leaves, keys, strict=True)
        ]
        with jax.numpy_dtype_promotion("standard"):  # Optax's own code mixes dtypes.
            moves, state = optimize.update(tree.unflatten(noised), state, trainable)
        return optax.apply_updates(trainable, moves), state

    state = optimize.init(trainable)
    for number in range(STEPS):
        trainable, state = step(trainable, state, frozen, jax.random.key(number))
    return trainable


def _gradient(
    model: Classifier | LanguageModel, trainable: Params, frozen: Params, batch: Batch
) -> Params:
    """The gradient of the mean loss, float32 in host memory."""

    def mean(trainable: Params, frozen: Params) -> Array:
        return model.loss(trainable, frozen, model.precompute(frozen, batch)).mean()

    found = jax.jit(jax.grad(mean))(trainable, frozen)
    return jax.tree.map(partial(np.asarray, dtype=np.float32), jax.device_get(found))


def _error(got: Any, wanted: Any) -> float:
    """Relative error; of a gradient that is zero, the size of what should be."""
    return _short(_size(got - wanted) / (_size(wanted) or 1.0))


def _excess(squares: np.ndarray, of_formed: np.ndarray) -> float:
    """The greatest excess of a norm, where there is any gradient; from squares."""
    is_there = of_formed > 0
    return _short(np.max(np.sqrt(squares[is_there] / of_formed[is_there]) - 1.0, initial=0.0))


def _size(x: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(x, dtype=np.float64))))


def _short(x: Any) -> float:
    return float(f"{x:.3g}")
