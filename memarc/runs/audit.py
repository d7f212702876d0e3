"""Trains a run once with canaries among its rows, and bounds its epsilon from below."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from memarc.batches import CLASSIFICATION
from memarc.data.dataset import padded_chunks
from memarc.models.classifier import Classifier
from memarc.privacy import audit, sampling
from memarc.report import plots, records
from memarc.runs import train
from memarc.runs.assemble import assemble, plan
from memarc.runs.canaries import CANARIES, Slots, WithCanaries, losses_of_texts, with_canaries
from memarc.runs.parse import parse
from memarc.runs.parts import Run
from memarc.runs.sections import AuditConfig
from memarc.runs.settings import Settings
from memarc.training import loop
from memarc.typing import Params

FILE_NAME = "audit.json"

PICTURE = "audit.png"


def run(config: Mapping[str, Any], folder: Path, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Audits one config.

    Args:
      config: Plain values of a config with one run, and the section "audit" (`AuditConfig`).
      folder: Where audit.json and, with matplotlib, audit.png are written.
      should_stop: Asked after every update.

    Returns:
      What audit.json holds.

    Raises:
      ValueError: For a mistake in the config, or a folder that holds an audit.
      memarc.runs.train.Stopped: If ``should_stop`` ended training early; it is saved.
    """
    if (folder / FILE_NAME).exists():
        raise ValueError(f"{folder / FILE_NAME} is there already; use another --workdir.")
    chosen, settings = _parse(config)
    base = assemble(settings)
    slots = Slots(len(base.splits.train), chosen.text_canaries, chosen.gradient_canaries)
    audited = audited_run(base, slots)
    trained = train.train(audited, folder, make_problem(slots), None, should_stop)
    with closing(trained.log):
        entropy = sampling.streams(trained.checkpoints.entropy()).canaries
        coins = slots.is_present(entropy)[slots.rows :]
        scores = _scores(base, audited, trained, slots)
    included = dict(zip(scores, np.split(coins, [slots.text]), strict=True))
    verdict = _verdict(chosen, audited, trained, scores, included)
    records.write_json(verdict, folder / FILE_NAME)
    _draw(folder, {kind: audit.rates(scores[kind], included[kind]) for kind in scores})
    trained.checkpoints.remove()
    return verdict


def audited_run(base: Run, slots: Slots) -> Run:
    """The same run over its rows and all canaries."""
    assert isinstance(base.model, Classifier)  # Parsing has checked the task.
    return dataclasses.replace(
        base,
        splits=dataclasses.replace(base.splits, train=with_canaries(base, slots)),
        model=WithCanaries(base.model.method, base.model.head, slots.gradient),
        mechanism=plan(base.settings, slots.total),
    )


def make_problem(slots: Slots) -> train.MakeProblem:
    """The problem of an audited run: canaries whose coins say so are left out of every draw."""

    def make(run: Run, frozen: Params, streams: sampling.Streams) -> loop.Problem:
        present = slots.is_present(streams.canaries)
        dataset, buckets = run.splits.train, run.splits.buckets
        rows = run.settings.privacy.physical_batch_size
        return dataclasses.replace(
            train.make_problem(run, frozen, streams),
            chunks=lambda drawn: padded_chunks(drawn[present[drawn]], dataset, buckets, rows),
        )

    return make


def _parse(config: Mapping[str, Any]) -> tuple[AuditConfig, Settings]:
    """The canaries and the one run of a config."""
    if "audit" not in config:
        raise ValueError("The config declares no canaries; give one such as configs/audit.py.")
    found = parse({key: value for key, value in config.items() if key != "audit"})
    if len(found) != 1:
        raise ValueError(f"The config has {len(found)} runs; an audit is of one.")
    if found[0].kind != CLASSIFICATION:
        raise ValueError(
            f"Task {found[0].task!r} is one of {found[0].kind}; an audit needs a classifier."
        )
    if found[0].data.user is not None:
        raise ValueError(
            f"data.user is {found[0].data.user!r}; canaries are rows, so an audit is of rows: "
            "leave it None."
        )
    chosen = AuditConfig(**config["audit"])
    return chosen, dataclasses.replace(found[0], audit=chosen)


def _scores(base: Run, audited: Run, trained: train.Trained, slots: Slots) -> dict[str, np.ndarray]:
    """How much each canary looks like one that was in, by kind."""
    assert isinstance(base.model, Classifier)
    trainable, dataset = trained.state.trainable, audited.splits.train
    losses = losses_of_texts(base, base.model, trainable, trained.problem.frozen, dataset, slots)
    return {"text": -losses, "gradient": -np.asarray(trainable[CANARIES])[:, 0]}


def _verdict(
    chosen: AuditConfig,
    audited: Run,
    trained: train.Trained,
    scores: Mapping[str, np.ndarray],
    included: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """The bounds, what they are held against, and with what they were made."""
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


def _draw(folder: Path, curves: Mapping[str, Any]) -> None:
    """Draws true over false positives, where matplotlib is installed."""
    try:
        plots.membership(curves, folder / PICTURE)
    except ValueError as error:  # Pictures are an extra.
        print(error)
