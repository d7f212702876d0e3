"""Chooses engine, rows at once and remat of a run, by its `privacy.fit`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from memarc.models.config import REMAT
from memarc.privacy import auto, ways
from memarc.report import targets
from memarc.runs import forecast
from memarc.runs.job import JOBS
from memarc.runs.parts import Run
from memarc.runs.settings import Settings
from memarc.training import engine, sharding, step


def fitted(run: Run) -> Run:
    """A run whose settings and model are of the way that its `privacy.fit` asks for.

    Nothing but memory and speed changes, so the run is recorded and resumed under the settings that
    it was given.

    Raises:
      ValueError: If no way fits the bytes that are given.
    """
    if run.settings.privacy.fit == ways.BALANCED:
        return run
    settings = chosen(run.settings, jax.devices(), targets.memory("", jax.local_devices()))
    backbone = dataclasses.replace(run.backbone, remat=settings.model.remat)
    model = JOBS[settings.kind].build(settings, run.codec, backbone)
    return dataclasses.replace(run, settings=settings, backbone=backbone, model=model)


def named(run: Run) -> dict[str, str]:
    """What a fitted run's sums follow from besides `memarc.runs.inputs.of_step`.

    Noised steps may be made again in the same way alone, and a device may have room for another.
    """
    privacy = run.settings.privacy
    return _named(run, privacy.engine, privacy.microbatch_size)


def resolved(run: Run, gradient: step.GradientSettings) -> dict[str, str]:
    """The same with the engine that "auto" has become, which hangs on what compilers say."""
    return _named(run, gradient.engine, gradient.microbatch_size)


def _named(run: Run, name: str, rows: int) -> dict[str, str]:
    return {"engine, rows at once, remat": f"{name}, {rows}, {run.settings.model.remat}"}


def chosen(settings: Settings, devices: Sequence[Any], memory: int) -> Settings:
    """The settings of a run with engine, rows at once and remat filled in for `privacy.fit`.

    With "balanced" they stay as they are: "auto" is resolved where the programs are compiled.

    Args:
      settings: The run.
      devices: Where its arrays will lie; they need not be there (`memarc.report.targets.devices`).
      memory: Bytes of one of them.

    Raises:
      ValueError: If no way fits.
    """
    privacy = settings.privacy
    if privacy.fit == ways.BALANCED:
        return settings
    placement = sharding.place(settings.mesh, devices, privacy.physical_batch_size)

    def work_of(way: ways.Way) -> int | None:
        drawn = forecast.sketch(_of(settings, way), devices)
        gradient = step.GradientSettings(privacy.rule, way.engine, way.rows)
        return engine.work(drawn.problem, drawn.state.trainable, gradient)

    found = ways.choose(
        privacy.fit,
        auto.CANDIDATES,
        REMAT if settings.model.remat == "none" else (settings.model.remat,),
        rows=sharding.rows_of_device(placement, privacy.physical_batch_size),
        memory=memory,
        work_of=work_of,
        bytes_of=lambda way: forecast.bytes_of(_of(settings, way), devices, memory),
    )
    return _of(settings, found)


def _of(settings: Settings, way: ways.Way) -> Settings:
    """A run that goes a way."""
    privacy = dataclasses.replace(
        settings.privacy, engine=way.engine, microbatch_size=way.rows, fit=ways.BALANCED
    )
    model = dataclasses.replace(settings.model, remat=way.remat)
    return dataclasses.replace(settings, privacy=privacy, model=model)
