"""Pre-trains a small backbone on public rows, without privacy.

    python -m experiments.pretrain --config=configs/pretrain_reviews.py --workdir=OUT

Writes OUT/backbone, a Hugging Face folder, with the tokenizer where code cannot build it, and with
pretraining.json, which says what was read: records of runs repeat it. No private row is read, so
no noise is added. The folder is written after every cycle of the learning rate, and the next cycle
starts from it: a command that was stopped goes on from the last one.

Axes: N rows, B batch, T tokens.
"""

import json
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from experiments import cli
from memarc.data import tokenize
from memarc.models import backbone, pretrained
from memarc.pretraining import rows as public_rows
from memarc.pretraining.rows import PublicRows
from memarc.report import records
from memarc.typing import Params

_KINDS = {"reviews": public_rows.labelled_reviews, "text": public_rows.plain_text}
POSITIONS = ("random", "waves")
_BLOCK = 10  # Steps between two looks at the loss.


def main() -> int:
    """Reads public rows, trains, and writes weights and a record after every cycle."""
    config, folder = cli.config(), Path(cli.workdir()) / "backbone"
    _check(config)
    rows = _KINDS[config.kind](config)
    for cycle in range(_cycles_done(config, folder), config.cycles):
        start = time.perf_counter()
        params, loss = train(config, rows, _start(config, rows.backbone, folder, cycle), cycle)
        seconds = time.perf_counter() - start
        dtype = pretrained.STORAGE_DTYPES[config.storage_dtype]
        params = jax.tree.map(lambda x, dtype=dtype: np.asarray(x).astype(dtype), params)
        _save(folder, rows, params, _record(config, rows, params, cycle, seconds, loss))
        print(f"Cycle {cycle + 1}: last loss {loss:.4f} nats, {seconds:.0f} s.")
    print(f"Weights: {folder}")
    return 0


def _save(folder, rows, params, record):
    """Writes a whole folder, and only then puts it in place of the cycle before.

    No weights stand anywhere without what says which rows they have read.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    records.write_json(record, _stated(partial))
    pretrained.save(partial, rows.backbone, params)
    if rows.tokenizer is not None:
        tokenize.save_tokenizer(rows.tokenizer, str(partial))
    if folder.exists():
        folder.rename(_old(folder))
    partial.rename(folder)
    shutil.rmtree(_old(folder), ignore_errors=True)


def _record(config, rows, params, cycle, seconds, loss) -> dict:
    """What the weights are after a cycle."""
    return {
        "source": rows.source,
        "not_private": list(rows.not_private),
        "rows": sum(len(bucket["input_ids"]) for bucket in rows.buckets),
        "cycles": cycle + 1,
        "steps": (cycle + 1) * config.steps,
        "seconds": round(seconds, 1),  # Of the last cycle.
        "last_loss": round(loss, 4),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "device": records.device(),
        "versions": records.versions(),
        "config": records.encode(config.to_dict()),
    }


def _stated(folder: Path) -> Path:
    return folder / records.PROVENANCE


def _old(folder: Path) -> Path:
    """Where the cycle before lies while the newest takes its place."""
    return folder.with_name(f"{folder.name}.old")


def _cycles_done(config, folder: Path) -> int:
    """Cycles of the same config that a folder holds.

    Raises:
      ValueError: If it holds weights of another config.
    """
    if not folder.exists() and _old(folder).exists():  # Stopped between the two renames.
        _old(folder).rename(folder)
    shutil.rmtree(_old(folder), ignore_errors=True)
    if not _stated(folder).exists():
        return 0
    found = json.loads(_stated(folder).read_text(encoding="utf-8"))
    if found["config"] != records.encode(config.to_dict()):
        raise ValueError(
            f"{folder} holds weights of another config; give another --workdir, or remove it."
        )
    return found["cycles"]


def _check(config) -> None:
    """Raises ValueError for what would else fail late, or mean something else."""
    if config.get("kind") not in _KINDS:
        raise ValueError(
            f"config.kind is {config.get('kind')!r}; give a config such as "
            f"configs/pretrain_reviews.py, whose kind is one of {list(_KINDS)}."
        )
    if config.storage_dtype not in pretrained.STORAGE_DTYPES:
        choices = tuple(pretrained.STORAGE_DTYPES)
        raise ValueError(
            f"config.storage_dtype is {config.storage_dtype!r}; choose one of {choices}."
        )
    if config.positions not in POSITIONS:
        raise ValueError(f"config.positions is {config.positions!r}; choose one of {POSITIONS}.")
    if config.positions == "waves" and config.backbone.get("kind") == "llama":
        raise ValueError("config.positions is 'waves', but a llama has no table; give 'random'.")
    for name, least in (("batch_tokens", 1), ("warmup_steps", 0), ("steps", 1), ("cycles", 1)):
        if config[name] < least:
            raise ValueError(f"config.{name} is {config[name]}; give at least {least}.")
    if config.steps <= config.warmup_steps:
        raise ValueError(
            f"config.steps is {config.steps}; give more than config.warmup_steps, "
            f"{config.warmup_steps}."
        )


def train(config, rows: PublicRows, params: Params, cycle: int) -> tuple[Params, float]:
    """Trains all parameters by AdamW; returns the backbone's, and the mean loss of the last steps.

    The learning rate is that of one cycle (SGDR, Loshchilov and Hutter 2017): it rises to its peak
    and falls to zero. Batches have about ``config.batch_tokens`` tokens; each is of one length,
    drawn as often as its share of all tokens, and its rows are drawn with replacement.
    """
    start_key, draw_key = jax.random.split(jax.random.key(config.seed + cycle))
    trainable = rows.init(start_key, params)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, config.steps
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=config.weight_decay)
    )

    @jax.jit
    def step(trainable, state, key, bucket):
        count, length = bucket["input_ids"].shape
        drawn = jax.random.randint(key, (max(1, config.batch_tokens // length),), 0, count)
        batch = {name: array[drawn] for name, array in bucket.items()}
        loss, gradient = jax.value_and_grad(lambda t: rows.loss(t, batch).mean())(trainable)
        with jax.numpy_dtype_promotion("standard"):  # Optax's own code mixes dtypes.
            updates, state = optimizer.update(gradient, state, trainable)
        return optax.apply_updates(trainable, updates), state, loss

    state, losses = optimizer.init(trainable), []
    buckets = jax.tree.map(jnp.asarray, rows.buckets)
    sizes = np.array([bucket["input_ids"].size for bucket in rows.buckets], float)
    chosen = np.random.default_rng(config.seed + cycle).choice(
        len(buckets), config.steps, p=sizes / sizes.sum()
    )
    with tqdm.trange(config.steps, desc="pre-training", unit="step", mininterval=10.0) as bar:
        for number in bar:
            key = jax.random.fold_in(draw_key, number)
            trainable, state, loss = step(trainable, state, key, buckets[chosen[number]])
            losses.append(loss)
            if number % _BLOCK == 0:
                bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
    return rows.params(trainable), float(jnp.stack(losses[-20:]).mean())


def _start(config, sizes, folder, cycle):
    """Parameters before a cycle: random ones, or those of the cycle before."""
    if cycle:
        return pretrained.load(folder, dtype="float32", storage_dtype="float32")[1]
    return _random(config, sizes, jax.random.split(jax.random.key(config.seed))[0])


def _random(config, sizes, key):
    """Random parameters, scaled; positions start as waves if the config says so."""
    params = jax.tree.map(
        lambda x: config.initial_scale * x if x.ndim > 1 else x, backbone.init(sizes, key)
    )
    if config.positions == "waves":
        table = params["embeddings"]["position"]
        # The deviation of one wave over its whole period is the root of one half.
        waves = jnp.asarray(_waves(*table.shape) / np.sqrt(0.5), table.dtype)
        params["embeddings"]["position"] = waves * table.std()
    return params


def _waves(count, width):
    """Sines and cosines of positions (Vaswani et al. 2017, section 3.5), [count, width].

    A shift is a rotation of them, the same at all positions: attention to the token before, of
    which copying is made, is learned at once for all.
    """
    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)  # [width / 2]
    angles = np.arange(count)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]


if __name__ == "__main__":
    cli.run(main)
