"""Trains a small backbone on public rows, without privacy, cycle by cycle.

The folder is written after every cycle of the learning rate, and the next cycle starts from it: a
training that was stopped goes on from the last one. No private row is read, so no noise is added.

Axes: N rows, B batch, T tokens.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from memarc.batches import INPUT_IDS
from memarc.models import backbone, pretrained
from memarc.models.config import BackboneConfig
from memarc.pretraining import folder as folders
from memarc.pretraining import recipe as recipes
from memarc.pretraining.recipe import Recipe
from memarc.pretraining.rows import PublicRows, read
from memarc.typing import Array, Batch, Params

_BLOCK = 10  # Steps between two looks at the loss.


def pretrain(config: Mapping[str, Any], folder: Path) -> None:
    """Reads public rows, trains, and writes weights and what they have read after every cycle.

    Args:
      config: Plain values of configs/pretrain_*.py.
      folder: A Hugging Face folder, made or gone on with.

    Raises:
      ValueError: For a mistake in the config, or a folder of another one.
    """
    rows, recipe = read(config), recipes.parse(config)
    for cycle in range(folders.cycles_done(config, folder), recipe.cycles):
        begun = time.perf_counter()
        start = _start(recipe, rows.backbone, folder, cycle)
        params, loss = train(recipe, rows, start, cycle)
        seconds = time.perf_counter() - begun
        dtype = pretrained.STORAGE_DTYPES[recipe.storage_dtype]
        params = jax.tree.map(lambda x, dtype=dtype: np.asarray(x).astype(dtype), params)
        record = folders.describe(
            config, recipe, rows, params, cycle=cycle, seconds=seconds, loss=loss
        )
        folders.save(folder, rows, params, record)
        print(f"Cycle {cycle + 1}: last loss {loss:.4f} nats, {seconds:.0f} s.")


def train(recipe: Recipe, rows: PublicRows, params: Params, cycle: int) -> tuple[Params, float]:
    """Trains all parameters by AdamW; returns the backbone's, and the mean loss of the last steps.

    The learning rate is that of one cycle (SGDR, Loshchilov and Hutter 2017): it rises to its peak
    and falls to zero. Batches have about ``recipe.batch_tokens`` tokens; each is of one length,
    drawn as often as its share of all tokens, and its rows are drawn with replacement.
    """
    start_key, draw_key = jax.random.split(jax.random.key(recipe.seed + cycle))
    trainable, frozen = rows.model.init(start_key, params)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, recipe.learning_rate, recipe.warmup_steps, recipe.steps
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=recipe.weight_decay)
    )

    @jax.jit
    def step(
        trainable: Params, state: optax.OptState, key: Array, bucket: Batch
    ) -> tuple[Params, optax.OptState, Array]:
        count, length = bucket[INPUT_IDS].shape
        drawn = jax.random.randint(key, (max(1, recipe.batch_tokens // length),), 0, count)
        batch = {name: array[drawn] for name, array in bucket.items()}
        loss, gradient = jax.value_and_grad(lambda t: rows.model.loss(t, frozen, batch).mean())(
            trainable
        )
        with jax.numpy_dtype_promotion("standard"):  # Optax's own code mixes dtypes.
            updates, state = optimizer.update(gradient, state, trainable)
        return optax.apply_updates(trainable, updates), state, loss

    state, losses = optimizer.init(trainable), []
    buckets = jax.tree.map(jnp.asarray, rows.buckets)
    sizes = np.array([bucket[INPUT_IDS].size for bucket in rows.buckets], float)
    chosen = np.random.default_rng(recipe.seed + cycle).choice(
        len(buckets), recipe.steps, p=sizes / sizes.sum()
    )
    with tqdm.trange(recipe.steps, desc="pre-training", unit="step", mininterval=10.0) as bar:
        for number in bar:
            key = jax.random.fold_in(draw_key, number)
            trainable, state, loss = step(trainable, state, key, buckets[chosen[number]])
            losses.append(loss)
            if number % _BLOCK == 0:
                bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
    return trainable["tuning"], float(jnp.stack(losses[-20:]).mean())


def _start(recipe: Recipe, sizes: BackboneConfig, folder: Path, cycle: int) -> Params:
    """Parameters before a cycle: random ones, or those of the cycle before."""
    if cycle:
        return pretrained.load(folder, dtype="float32", storage_dtype="float32")[1]
    return random_start(recipe, sizes, jax.random.split(jax.random.key(recipe.seed))[0])


def random_start(recipe: Recipe, sizes: BackboneConfig, key: Array) -> Params:
    """Random parameters, scaled; positions start as waves if the recipe says so."""
    params = jax.tree.map(
        lambda x: recipe.initial_scale * x if x.ndim > 1 else x, backbone.init(sizes, key)
    )
    if recipe.positions == "waves":
        table = params["embeddings"]["position"]
        # The deviation of one wave over its whole period is the root of one half.
        start = jnp.asarray(waves(*table.shape) / np.sqrt(0.5), table.dtype)
        params["embeddings"]["position"] = start * table.std()
    return params


def waves(count: int, width: int) -> np.ndarray:
    """Sines and cosines of positions (Vaswani et al. 2017, section 3.5), [count, width].

    A shift is a rotation of them, the same at all positions: attention to the token before, of
    which copying is made, is learned at once for all.
    """
    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)  # [width / 2]
    angles = np.arange(count)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]
