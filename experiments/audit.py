"""Trains a config's run once with canaries among its rows, and bounds its epsilon from below.

    python -m experiments.audit --config=configs/audit.py --workdir=DIR

Each canary is in or out by a coin. A text canary is a row of random tokens with a random label,
scored by its loss. A gradient canary is a row whose gradient is one coordinate of its own, at the
full clip norm: the strongest that the mechanism allows; it is scored by that released coordinate.
Writes DIR/audit.json, and DIR/audit.png (true over false positives) where matplotlib is installed.

A lower bound above the proven epsilon, or above --config.audit.claimed_epsilon, contradicts the
claim: it says so and exits with 3.
"""

import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from experiments import cli
from memarc.data.dataset import Dataset, padded_chunks
from memarc.data.tokenize import Encoded
from memarc.models.build import Model
from memarc.ops.linear import take_rows
from memarc.privacy import audit, sampling
from memarc.report import plots, records
from memarc.runs import assemble
from memarc.runs import settings as settings_lib
from memarc.runs import train as training
from memarc.training.interrupt import stop_requests

FILE_NAME = "audit.json"

CONTRADICTED = 3
"""Exit status where the bound lies above the claim."""

_SHOWN = (
    "proven_epsilon",
    "claimed_epsilon",
    "empirical_epsilon",
    "confidence",
    "delta",
    "is_contradicted",
    "canaries",
)

_STEEPNESS = 1e4
"""Gradient of a gradient canary before clipping: far above any clip norm."""


@dataclasses.dataclass(frozen=True)
class AuditConfig:
    """Canaries, and what is held against them.

    Attributes:
      gradient_canaries: Rows with a coordinate of their own; about half of them are in.
      text_canaries: Rows of random tokens; about half of them are in.
      confidence: Of the bound, shared by both kinds.
      claimed_epsilon: None holds the proven epsilon against the bound.
    """

    gradient_canaries: int
    text_canaries: int
    confidence: float
    claimed_epsilon: float | None

    def __post_init__(self):
        """Checks all fields."""
        if min(self.gradient_canaries, self.text_canaries) < 50:
            raise ValueError(
                f"audit.gradient_canaries is {self.gradient_canaries} and text_canaries "
                f"{self.text_canaries}; give at least 50 of each."
            )
        if not 0 < self.confidence < 1:
            raise ValueError(f"audit.confidence is {self.confidence}; give a number in (0, 1).")


@dataclasses.dataclass(frozen=True)
class Slots:
    """Where canaries stand among the rows: text canaries after the rows, gradient canaries last."""

    rows: int
    text: int
    gradient: int

    @property
    def total(self) -> int:
        """Rows and canaries, in or not."""
        return self.rows + self.text + self.gradient

    def is_present(self, entropy: int) -> np.ndarray:
        """bool[total]: all rows, and the canaries whose coins say so."""
        generator = sampling.step_generator(entropy, 0)
        coins = audit.flip_coins(self.text + self.gradient, generator)
        return np.concatenate([np.ones(self.rows, bool), coins])


def main() -> int:
    """Trains, scores and writes the verdict."""
    folder = Path(cli.workdir())
    with stop_requests() as should_stop:
        try:
            verdict = run(cli.config(), folder, should_stop)
        except training.Stopped as stopped:
            print(f"{stopped} The same command goes on from there.")
            return training.STOPPED
    print(json.dumps({key: verdict[key] for key in _SHOWN}, indent=2))
    if not verdict["is_contradicted"]:
        return 0
    print(
        f"The claim of epsilon {verdict['claimed_epsilon']} is contradicted: at confidence "
        f"{verdict['confidence']} it is at least {verdict['empirical_epsilon']:.3g}."
    )
    return CONTRADICTED


def run(config: config_dict.ConfigDict, folder: Path, should_stop) -> dict:
    """Audits one config; returns what audit.json holds.

    Raises:
      ValueError: For a mistake in the config, or a folder that holds an audit.
      training.Stopped: If a signal ended training early; it is saved.
    """
    if (folder / FILE_NAME).exists():
        raise ValueError(f"{folder / FILE_NAME} is there already; use another --workdir.")
    chosen, settings = _parse(config)
    base: Any = assemble.assemble(settings)  # Of a classification task, as parsing has checked.
    slots = Slots(len(base.splits.train), chosen.text_canaries, chosen.gradient_canaries)
    dataset = _with_canaries(base, slots)
    audited = dataclasses.replace(
        base,
        splits=dataclasses.replace(base.splits, train=dataset),
        model=_with_coordinates(base.model, slots.gradient, base.splits.num_labels),
        mechanism=assemble.plan(settings, slots.total),
    )

    def make_problem(run, frozen, streams):
        present = slots.is_present(streams.canaries)
        problem = training.make_problem(run, frozen, streams)
        rows, buckets = settings.privacy.physical_batch_size, run.splits.buckets
        return dataclasses.replace(
            problem,
            chunks=lambda drawn: padded_chunks(drawn[present[drawn]], dataset, buckets, rows),
        )

    trained = training.train(audited, folder, make_problem, should_stop)
    with closing(trained.log):
        entropy = sampling.streams(trained.checkpoints.entropy()).canaries
        coins = slots.is_present(entropy)[slots.rows :]
        scores = {
            "text": -_losses(base, trained, dataset, slots),
            "gradient": -np.asarray(trained.state.trainable["canaries"])[:, 0],
        }
    included = dict(zip(scores, np.split(coins, [slots.text]), strict=True))
    verdict = _verdict(chosen, audited, trained, scores, included)
    records.write_json(verdict, folder / FILE_NAME)
    _draw(folder, {kind: audit.rates(scores[kind], included[kind]) for kind in scores})
    trained.checkpoints.remove()
    return verdict


def _parse(config) -> tuple[AuditConfig, settings_lib.Settings]:
    if "audit" not in config:
        raise ValueError("The config declares no canaries; give one such as configs/audit.py.")
    canaries = config.audit.to_dict()
    rest = config_dict.ConfigDict({key: config[key] for key in config if key != "audit"})
    found = settings_lib.parse(rest)
    if len(found) != 1:
        raise ValueError(f"The config has {len(found)} runs; an audit is of one.")
    if found[0].decoding:
        raise ValueError(f"Task {found[0].task!r} generates text; an audit needs a classifier.")
    plain = {**found[0].plain, "audit": records.encode(canaries)}
    return AuditConfig(**canaries), dataclasses.replace(found[0], plain=plain)


def _with_canaries(base, slots) -> Dataset:
    """The train set and all canaries; labels of gradient canaries count on after the classes."""
    train, tokenizer = base.splits.train, base.splits.tokenizer
    rng = np.random.default_rng(0)  # Canaries are public; only their coins are not.
    words = np.setdiff1d(np.arange(tokenizer.vocab_size), tokenizer.special_ids)
    length = max(1, train.max_length // 4)
    sizes = np.concatenate([np.full(slots.text, length), np.ones(slots.gradient, int)])
    tokens = rng.choice(words, sizes.sum()).astype(np.int32)
    labels = np.concatenate(
        [
            train.labels,
            rng.integers(base.splits.num_labels, size=slots.text),
            base.splits.num_labels + np.arange(slots.gradient),
        ]
    )
    encoded = train.encoded
    return Dataset(
        encoded=Encoded(
            input_ids=np.concatenate([encoded.input_ids, tokens]),
            token_type_ids=np.concatenate([encoded.token_type_ids, np.zeros_like(tokens)]),
            offsets=np.concatenate([encoded.offsets, encoded.offsets[-1] + np.cumsum(sizes)]),
            truncated_rows=encoded.truncated_rows,
        ),
        labels=labels.astype(train.labels.dtype),
        pad_id=train.pad_id,
        max_length=train.max_length,
    )


def _with_coordinates(model: Model, count: int, num_labels: int) -> Model:
    """The model with a coordinate for each gradient canary, which nothing but its row moves."""

    def init(key, params):
        trainable, frozen = model.init(key, params)
        return {"model": trainable, "canaries": jnp.zeros((count, 1))}, frozen

    def loss(trainable, frozen, batch):
        number = batch["labels"] - num_labels  # [B]; negative for rows that are no such canary.
        is_canary = number >= 0
        coordinate = take_rows(trainable["canaries"], jnp.maximum(number, 0)[:, None])[:, 0, 0]
        labels = jnp.minimum(batch["labels"], num_labels - 1)
        plain = model.loss(trainable["model"], frozen, {**batch, "labels": labels})
        return jnp.where(is_canary, _STEEPNESS * coordinate, plain)

    return dataclasses.replace(
        model,
        init=init,
        loss=loss,
        logits=lambda trainable, *rest: model.logits(trainable["model"], *rest),
        check_start=lambda trainable, frozen: model.check_start(trainable["model"], frozen),
    )


def _losses(base, trained, dataset, slots) -> np.ndarray:
    """Losses of the text canaries under the released parameters, float[text]."""
    model, frozen = base.model, trained.problem.frozen

    @jax.jit
    def losses(trainable, batch):
        return model.loss(trainable, frozen, model.precompute(frozen, batch))

    numbers = slots.rows + np.arange(slots.text)  # All of one length, so in their order.
    rows, buckets = base.settings.training.eval_batch_size, base.splits.buckets
    return np.concatenate(
        [
            np.asarray(losses(trained.state.trainable["model"], batch))[~is_padding]
            for _, batch, is_padding in padded_chunks(numbers, dataset, buckets, rows)
        ]
    )


def _verdict(chosen, audited, trained, scores, included) -> dict:
    mechanism = audited.mechanism
    proven = mechanism.spent(mechanism.steps).epsilon
    each = 1 - (1 - chosen.confidence) / len(scores)
    findings = {
        kind: audit.examine(scores[kind], included[kind], delta=mechanism.delta, confidence=each)
        for kind in scores
    }
    claimed = proven if chosen.claimed_epsilon is None else chosen.claimed_epsilon
    bound = max(finding.epsilon for finding in findings.values())
    return records.encode(
        {
            "method": audited.settings.method,
            "task": audited.settings.task,
            "engine": trained.engine,
            "proven_epsilon": proven,
            "claimed_epsilon": claimed,
            "empirical_epsilon": bound,
            "confidence": chosen.confidence,
            "delta": mechanism.delta,
            "is_contradicted": bound > claimed,
            "noise_multiplier": mechanism.noise_multiplier,
            "steps": mechanism.steps,
            "rows": mechanism.sampler.num_examples,
            "false_positive_rate": audit.FALSE_POSITIVE_RATE,
            "canaries": {kind: dataclasses.asdict(x) for kind, x in findings.items()},
            "seconds": round(trained.seconds, 1),
            "device": records.device(),
            "versions": records.versions(),
            "commit": records.commit(Path(__file__).parent),
            "config": audited.settings.plain,
        }
    )


def _draw(folder, curves) -> None:
    try:
        plots.membership(curves, folder / "audit.png")
    except ValueError as error:  # Pictures are an extra.
        print(error)


if __name__ == "__main__":
    cli.run(main)
