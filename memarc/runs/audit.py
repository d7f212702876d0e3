"""Trains a run once with canaries among its rows, and bounds its epsilon from below.

The run is the one that the config says: its rate, noise, steps, clipping and divisor; only the
canaries are added to its rows. Bounds are from what the noised gradients of all steps tell (the
trajectory, white box) and from the released parameters alone (black box).
"""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from memarc.batches import CLASSIFICATION, REGRESSION
from memarc.data.dataset import Dataset, padded_chunks
from memarc.privacy import audit, sampling, zeroth_order
from memarc.privacy.accounting import Spending
from memarc.report import plots, records
from memarc.runs import train
from memarc.runs.assemble import assemble
from memarc.runs.canaries import CANARIES, GRADIENT, Slots, WithCanaries, watched
from memarc.runs.canary_rows import with_canaries
from memarc.runs.parse import parse
from memarc.runs.parts import Run
from memarc.runs.sections import AuditConfig
from memarc.runs.settings import Settings
from memarc.runs.statement import AUDIT_FILE as FILE_NAME
from memarc.training import loop
from memarc.typing import Array, Batch, Params

PICTURE = "audit.png"

TRAJECTORY, RELEASED = SEEN = ("trajectory", "released")
"""What an auditor sees: noised gradients of all steps, or the parameters at the end."""

Scores = Mapping[tuple[str, str], np.ndarray]
"""(kind of canary, what is seen) -> scores [M], higher where a canary seems to be in."""


def run(
    config: Mapping[str, Any],
    folder: Path,
    should_stop: Callable[[], bool],
    only: str | None = None,
) -> dict[str, Any]:
    """Audits one run of a config.

    Args:
      config: Plain values of a config. It may have the section "audit" (`AuditConfig`).
      folder: Where audit.json and, with matplotlib, audit.png are written.
      should_stop: Asked after every update.
      only: The name of the run, where the config has several.

    Returns:
      What audit.json holds.

    Raises:
      ValueError: For a mistake in the config, or a folder that holds an audit.
      memarc.runs.train.Stopped: If ``should_stop`` ended training early; it is saved.
    """
    if (folder / FILE_NAME).exists():
        raise ValueError(f"{folder / FILE_NAME} is there already; use another --workdir.")
    chosen, settings = _parse(config, only)
    base = assemble(settings)
    slots = Slots(len(base.splits.train), chosen.counts)
    audited = audited_run(base, slots)
    trained = train.train(audited, folder, make_problem(slots), None, should_stop)
    with closing(trained.log):
        streams = sampling.streams(trained.checkpoints.entropy())
        is_present = slots.is_present(streams.canaries)
        start, _ = base.model.init(streams.initialisation, base.params)
        scores = _scores(base, audited, trained, start, slots)
    included = {kind: is_present[slots.of(kind)] for kind in slots.counts}
    verdict = _verdict(chosen, audited, trained, scores, included)
    records.write_json(verdict, folder / FILE_NAME)
    _draw(folder, {f"{x[0]}, {x[1]}": audit.rates(scores[x], included[x[0]]) for x in scores})
    trained.checkpoints.remove()
    return verdict


def audited_run(base: Run, slots: Slots) -> Run:
    """The same run over its rows and all canaries."""
    classes = len(base.settings.record_of_task.labels)
    is_labelled = base.settings.kind == CLASSIFICATION
    return dataclasses.replace(
        base,
        splits=dataclasses.replace(base.splits, train=with_canaries(base, slots)),
        model=WithCanaries(
            base.model.method, base.model, classes if is_labelled else 0, slots.counts[GRADIENT]
        ),
        mechanism=watched(base.mechanism, slots.total),
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


def _parse(config: Mapping[str, Any], only: str | None) -> tuple[AuditConfig, Settings]:
    """The canaries and the one run of a config."""
    plain = {key: value for key, value in config.items() if key != "audit"} | {"repeats": 1}
    found = parse(plain, None if only is None else [only])
    if len(found) != 1:
        raise ValueError(
            f"The config has {len(found)} runs and an audit is of one; name it by --only, one of "
            f"{[x.name for x in found]}."
        )
    if found[0].kind == REGRESSION:
        raise ValueError(
            f"Task {found[0].task!r} is one of {found[0].kind}; an audit is of a classifier or a "
            "language model."
        )
    if found[0].data.user is not None:
        raise ValueError(
            f"data.user is {found[0].data.user!r}; canaries are rows, so an audit is of rows: "
            "leave it None."
        )
    if found[0].privacy.engine == zeroth_order.NAME:
        raise ValueError(
            f"privacy.engine is {zeroth_order.NAME!r}, whose steps release one number that all "
            "rows share; gradient canaries have a coordinate each. Audit another engine."
        )
    chosen = AuditConfig(**config.get("audit", {}))
    return chosen, dataclasses.replace(found[0], audit=chosen)


def _scores(
    base: Run, audited: Run, trained: train.Trained, start: Params, slots: Slots
) -> dict[tuple[str, str], np.ndarray]:
    """How much each canary looks like one that was in."""
    end, dataset = trained.state.trainable, audited.splits.train
    ratios = optax.tree.get(trained.state.noise_state, "log_ratios")
    found = {
        (GRADIENT, TRAJECTORY): np.asarray(ratios, np.float64),
        (GRADIENT, RELEASED): -np.asarray(end[CANARIES], np.float64)[:, 0],
    }
    end = {key: value for key, value in end.items() if key != CANARIES}
    for kind in slots.counts:
        if kind != GRADIENT:
            before, after = (
                _losses(base, trainable, trained.problem.frozen, dataset, slots.of(kind))
                for trainable in (start, end)
            )
            found[kind, RELEASED] = before - after
    return found


def _losses(
    run: Run, trainable: Params, frozen: Params, dataset: Dataset, numbers: np.ndarray
) -> np.ndarray:
    """The model's losses of some examples, float[M], in their order."""

    @jax.jit
    def losses(trainable: Params, batch: Batch) -> Array:
        return run.model.loss(trainable, frozen, run.model.precompute(frozen, batch))

    rows, longest = run.settings.training.eval_batch_size, (run.splits.buckets[-1],)
    return np.concatenate(
        [
            np.asarray(losses(trainable, batch), np.float64)[~is_padding]
            for _, batch, is_padding in padded_chunks(numbers, dataset, longest, rows)
        ]
    )


def _verdict(
    chosen: AuditConfig,
    audited: Run,
    trained: train.Trained,
    scores: Scores,
    included: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """The bounds, what they are held against, and with what they were made."""
    mechanism = audited.mechanism
    proven = mechanism.spent(mechanism.steps).epsilon
    confidence = _shared_out(chosen.confidence, scores)
    findings = {
        (kind, seen): audit.examine(
            scores[kind, seen],
            included[kind],
            delta=mechanism.delta,
            confidence=confidence[kind, seen],
        )
        for kind, seen in scores
    }
    by_seen = {
        seen: max((x.epsilon for (_, how), x in findings.items() if how == seen), default=0.0)
        for seen in SEEN
    }
    claimed = proven if chosen.claimed_epsilon is None else chosen.claimed_epsilon
    bound = max(by_seen.values())
    plan = Spending(mechanism.sampler, mechanism.noise_multiplier, mechanism.steps)
    return records.encode(
        {
            "proven_epsilon": proven,
            "claimed_epsilon": claimed,
            "empirical_epsilon": bound,
            "trajectory_epsilon": by_seen[TRAJECTORY],
            "released_epsilon": by_seen[RELEASED],
            "family_epsilon": audit.within_family(
                findings[GRADIENT, TRAJECTORY],
                plan,
                delta=mechanism.delta,
                confidence=confidence[GRADIENT, TRAJECTORY],
            ),
            "confidence": chosen.confidence,
            "is_contradicted": bound > claimed,
            "false_positive_rate": audit.FALSE_POSITIVE_RATE,
            "canaries": [
                {"kind": kind, "seen": seen, **dataclasses.asdict(x)}
                for (kind, seen), x in findings.items()
            ],
            **_made_with(audited, trained),
        }
    )


def _made_with(audited: Run, trained: train.Trained) -> dict[str, Any]:
    """The mechanism that was audited, and with what."""
    mechanism = audited.mechanism
    return {
        "method": audited.settings.method,
        "task": audited.settings.task,
        "engine": trained.gradient.engine,
        "delta": mechanism.delta,
        "clip_norm": mechanism.clipping.clip_norm,
        "noise_multiplier": mechanism.noise_multiplier,
        "sampling_rate": mechanism.sampling_rate,
        "steps": mechanism.steps,
        "rows": mechanism.sampler.num_examples,
        "seconds": round(trained.seconds, 1),
        "device": records.device(),
        "versions": records.versions(),
        "commit": records.commit(Path(__file__).parent),
        "config": audited.settings.plain,
    }


def _shared_out(confidence: float, scores: Scores) -> dict[tuple[str, str], float]:
    """The confidence of each finding: the strongest has half of what may fail, the others share."""
    half = audit.shared(confidence, 2)
    others = audit.shared(half, len(scores) - 1)
    return {found: half if found[1] == TRAJECTORY else others for found in scores}


def _draw(folder: Path, curves: Mapping[str, Any]) -> None:
    """Draws true over false positives, where matplotlib is installed."""
    try:
        plots.membership(curves, folder / PICTURE)
    except ValueError as error:  # Pictures are an extra.
        print(error)
