"""Pre-trains a small encoder on labelled public rows of the embedded grammar, without privacy.

    python -m experiments.pretrain --config=configs/pretrain_reviews.py --workdir=OUT

Writes OUT/backbone, a Hugging Face folder, and OUT/pretraining.json, which says what was read. No
private row is read, so no noise is added. The head that the training used is thrown away.

Axes: N rows, B batch, T tokens.
"""

import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from experiments import cli
from memarc.data import reviews, tokenize
from memarc.data.dataset import Dataset
from memarc.models import backbone, build, pretrained
from memarc.models.config import BackboneConfig
from memarc.models.head import HeadConfig
from memarc.report import records

SOURCE = (
    "Public rows of memarc.data.reviews with their labels, which lack one of the private rows' "
    "forms. No row of the train or dev stream was read, and the head was thrown away."
)


def main() -> int:
    """Reads public rows, trains, and writes weights and a record."""
    config, workdir = cli.config(), Path(cli.workdir())
    rows, encoder = public_rows(config)
    start = time.perf_counter()
    params, loss = train(config, encoder, rows)
    seconds = time.perf_counter() - start
    dtype = pretrained.STORAGE_DTYPES[config.storage_dtype]
    params = jax.tree.map(lambda x: np.asarray(x).astype(dtype), params)
    pretrained.save(workdir / "backbone", encoder, params)
    record = {
        "source": SOURCE,
        "rows": config.rows,
        "steps": config.steps,
        "seconds": round(seconds, 1),
        "last_loss": round(loss, 4),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "versions": records.versions(),
        "config": records.encode(config.to_dict()),
    }
    (workdir / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"Last loss {loss:.4f} nats, {seconds:.0f} s. Weights: {workdir / 'backbone'}")
    return 0


def public_rows(config) -> tuple[dict[str, np.ndarray], BackboneConfig]:
    """The tokenized public rows [N, T], and the sizes of the encoder that reads them."""
    tokenizer = tokenize.word_level_tokenizer(reviews.vocabulary())
    info = tokenize.describe(tokenizer, tokenize.WORD_LEVEL)
    rows = reviews.public_rows(config.rows, config.seed)
    encoded = tokenize.encode(tokenizer, rows.columns, max_length=config.max_length)
    dataset = Dataset(encoded, rows.labels, info.pad_id, config.max_length)
    encoder = BackboneConfig(
        kind="bert",
        vocab_size=info.vocab_size,
        max_positions=config.max_length,
        type_vocab=1,
        pad_id=info.pad_id,
        dtype="float32",
        **config.backbone.to_dict(),
    )
    return dataset.take(np.arange(len(dataset)), config.max_length), encoder


def train(config, encoder: BackboneConfig, rows):
    """Trains all parameters by AdamW; returns the encoder's, and the mean loss of the last steps.

    Batches are drawn with replacement.
    """
    model = build.build("full", {}, encoder, HeadConfig(config.pooling, len(set(rows["labels"]))))
    start_key, draw_key = jax.random.split(jax.random.key(config.seed))
    scaled = jax.tree.map(
        lambda x: config.initial_scale * x if x.ndim > 1 else x, backbone.init(encoder, start_key)
    )
    trainable, frozen = model.init(start_key, scaled)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, config.steps
    )
    optimizer = optax.adamw(schedule)

    @jax.jit
    def step(trainable, state, key, rows):
        drawn = jax.random.randint(key, (config.batch_size,), 0, config.rows)
        batch = {name: array[drawn] for name, array in rows.items()}
        loss, gradient = jax.value_and_grad(lambda t: model.loss(t, frozen, batch).mean())(
            trainable
        )
        updates, state = optimizer.update(gradient, state, trainable)
        return optax.apply_updates(trainable, updates), state, loss

    state, losses = optimizer.init(trainable), []
    rows = jax.tree.map(jnp.asarray, rows)
    for number in tqdm.trange(config.steps, desc="pre-training", unit="step", mininterval=10.0):
        trainable, state, loss = step(trainable, state, jax.random.fold_in(draw_key, number), rows)
        losses.append(loss)
    return trainable["tuning"], float(jnp.stack(losses[-20:]).mean())


if __name__ == "__main__":
    cli.run(main)
