"""The record of a finished run: what it promised, what it did, and with what it was made."""

from pathlib import Path

import jax

from memarc.ops.compiled import compiled_bytes
from memarc.ops.quantised import is_quantised
from memarc.report import memory, records
from memarc.runs.parts import Run
from memarc.runs.train import Trained
from memarc.typing import Params


def make_record(
    run: Run, trained: Trained, scores: dict[str, float], standard_errors: dict[str, float]
) -> records.Record:
    """What a run promised and did.

    Args:
      run: The run.
      trained: The end of its training.
      scores: "set_metric" -> value; the first is the headline.
      standard_errors: "set_metric" -> the standard error of the score, where it is known.
    """
    settings, mechanism, seconds = run.settings, run.mechanism, trained.seconds
    spent = mechanism.spent(mechanism.steps)
    trainable, frozen = map(_count, (trained.state.trainable, trained.problem.frozen))
    return records.Record(
        name=settings.name,
        method=settings.method,
        task=settings.task,
        backbone=_backbone(run),
        engine=trained.gradient.engine,
        epsilon=spent.epsilon,
        epsilon_pld=spent.epsilon_pld,
        delta=mechanism.delta,
        clip_norm=mechanism.clipping.clip_norm,
        clipping=mechanism.clipping.rule,
        noise_multiplier=mechanism.noise_multiplier,
        sampling_rate=mechanism.sampling_rate,
        expected_batch_size=mechanism.divisor,
        steps=mechanism.steps,
        neighbouring=mechanism.neighbouring,
        unit=mechanism.unit,
        reproducible_noise=reproducible(settings.seed),
        trainable_parameters=trainable,
        total_parameters=trainable + frozen,
        scores=scores,
        seconds=round(seconds, 2),
        compile_seconds=round(trained.programs.compile_seconds, 2),
        examples_per_second=round(mechanism.steps * mechanism.divisor / max(seconds, 1e-9), 1),
        memory=_memory(run, trained),
        device=records.device(),
        versions=records.versions(),
        commit=records.commit(Path(__file__).parent),
        config=settings.plain,
        accountant=spent.accountant,
        epsilon_rdp=spent.epsilon_rdp,
        ledger=trained.together,
        chosen=run.model.method.chosen(trained.problem.frozen),
        standard_errors=standard_errors,
        microbatch_size=trained.gradient.microbatch_size,
        remat=trained.remat,
        eval_rows={name: len(given.dataset) for name, given in run.splits.evals.items()},
    )


def reproducible(seed: int | None) -> bool | str:
    """Why a run's noise could be made again; False if its entropy came from the system."""
    return False if seed is None else "fixed seed: not private against who knows it"


def _backbone(run: Run) -> str:
    """What the weights are: kind, sizes, and where they come from."""
    return (
        f"{run.backbone.kind}, {run.backbone.layers} layers, width {run.backbone.width}, "
        f"{run.settings.model.dtype}, {run.provenance}"
    )


def _memory(run: Run, trained: Trained) -> dict[str, int]:
    """Bytes that the longest batch keeps for the backward pass, and those of its program."""
    problem = trained.problem
    longest = max(problem.shapes)
    per_example = memory.backward_bytes_per_example(
        *problem.differentiated(trained.state.point), problem.shapes[longest]
    )
    return {
        "backward_bytes_per_example": per_example,
        "backward_bytes": per_example * trained.gradient.microbatch_size,
        **compiled_bytes(trained.programs.accumulate[longest]),
    }


def _count(tree: Params) -> int:
    """Numbers in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree, is_leaf=is_quantised))
