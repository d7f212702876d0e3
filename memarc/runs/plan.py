"""What a run's noise will be, before it is made: at its plan, near it, and within a budget of time.

Axes: N examples, B expected batch size, d values that a step noises.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from memarc.models.methods import REMAT_SUFFIX, default_options
from memarc.privacy import accounting, calibration
from memarc.privacy.mechanism import Mechanism
from memarc.privacy.sampling import PoissonSampler
from memarc.runs import assemble
from memarc.runs.parse import parse
from memarc.runs.settings import Settings

FACTORS = (0.5, 1.0, 2.0, 4.0)
"""Epochs and batches of `affordable`, as multiples of the config's."""


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long the parts of a step take.

    Attributes:
      batch_seconds: One compiled call that adds ``rows`` examples to the clipped sum.
      update_seconds: All else of a step: zeros, noise and update.
      rows: Examples of a call.
    """

    batch_seconds: float
    update_seconds: float
    rows: int

    def step_seconds(self, sampler: PoissonSampler) -> float:
        """Expected seconds of a step whose draws are the sampler's."""
        return self.update_seconds + expected_calls(sampler, self.rows) * self.batch_seconds


def variants(
    config: Mapping[str, Any], only: Sequence[str] | None, methods: Sequence[str]
) -> list[Settings]:
    """The runs of a config, each once, or what they are with other methods.

    Args:
      config: Plain values (`memarc.runs.parse.parse`).
      only: Names of the runs that are wanted; None means all.
      methods: Tuning methods, each also with `REMAT_SUFFIX`; () keeps those of the runs. Runs that
        differ by their method alone become one.

    Raises:
      ValueError: For what `parse` refuses, and for an unknown method.
    """
    config = {**config, "repeats": 1}  # They take alike.
    chosen = parse(config, only)
    found: dict[str, Settings] = {}
    for label in methods:
        name = label.removesuffix(REMAT_SUFFIX)
        default_options(name)  # Refuses an unknown method.
        with_method = parse(_with_method(config, name, label != name), only)
        for settings in with_method:
            named = dataclasses.replace(settings, name=label)
            found.setdefault(str(named.plain), named)
    return list(found.values()) or chosen


def label_of(settings: Settings) -> str:
    """The method of a run as command lines write it."""
    return settings.method + (REMAT_SUFFIX if settings.model.remat == "layer" else "")


def noise(settings: Settings, mechanism: Mechanism, released: int) -> dict[str, Any]:
    """What a run promises, and how its noise compares with its batch.

    Args:
      settings: The run.
      mechanism: Its plan (`memarc.runs.assemble.plan`).
      released: d, which is 1 of "zeroth_order", else what is trained.

    Returns:
      units, sampling_rate, batch, epochs, steps; promised epsilon, delta and accountant; sigma, and
      what each accountant calibrates for the promise, sigma_rdp and sigma_pld (None where one does
      not cover the draws); epsilon_rdp and epsilon_pld at sigma; noise_over_batch, sigma C / B, the
      standard deviation of each value of the noised mean gradient; noise_norm, that by sqrt(d), the
      norm that the noise nearly has, where the mean gradient's is at most clip_norm; and near,
      plans of half and twice the epochs and batches with their epsilons at the same sigma.
    """
    sampler, spent = mechanism.sampler, mechanism.spent(mechanism.steps)
    over_batch = mechanism.noise_stddev / mechanism.divisor
    return {
        "units": sampler.num_examples,
        "sampling_rate": sampler.sampling_rate,
        "batch": mechanism.divisor,
        "epochs": settings.training.epochs,
        "steps": mechanism.steps,
        "epsilon": settings.privacy.epsilon,
        "delta": mechanism.delta,
        "accountant": mechanism.accountant,
        "sigma": mechanism.noise_multiplier,
        **{f"sigma_{name}": _calibrated(settings, mechanism, name) for name in ("rdp", "pld")},
        "epsilon_rdp": spent.epsilon_rdp,
        "epsilon_pld": spent.epsilon_pld,
        "clip_norm": mechanism.clipping.clip_norm,
        "noise_over_batch": over_batch,
        "noise_norm": over_batch * math.sqrt(released),
        "near": list(_near(settings, mechanism)),
    }


def expected_calls(sampler: PoissonSampler, rows: int) -> float:
    """The mean of ceil(n / rows), n the size of a draw: compiled calls that a step needs."""
    most = sampler.max_batch_size or sampler.num_examples
    full = np.arange(0, min(most, sampler.num_examples), rows)  # A call begins where n passes one.
    return float(stats.binom.sf(full, sampler.num_examples, sampler.sampling_rate).sum())


def affordable(
    settings: Settings, num_examples: int, pace: Pace, released: int, *, seconds: float
) -> list[dict[str, Any]]:
    """Plans of a run with other epochs and batches that a budget of time allows.

    Args:
      settings: The run; what is promised stays.
      num_examples: N.
      pace: How long the parts of its step take.
      released: d, which is 1 of "zeroth_order", else what is trained.
      seconds: The budget, compiling left out.

    Returns:
      For all `FACTORS` of epochs and batch, as far as they fit: method, batch, epochs, steps,
      seconds, sigma, noise_over_batch and noise_norm (as of `noise`).
    """
    found = []
    for epochs in FACTORS:
        for batch in FACTORS:
            other = _scaled(settings, epochs, batch, num_examples)
            if other is None:
                continue
            sampler, steps = _draws(other, num_examples)
            takes = steps * pace.step_seconds(sampler)
            if takes > seconds:
                continue
            mechanism = assemble.plan(other, num_examples)
            over_batch = mechanism.noise_stddev / mechanism.divisor
            found.append(
                {
                    "method": label_of(settings),
                    "batch": mechanism.divisor,
                    "epochs": other.training.epochs,
                    "steps": steps,
                    "seconds": takes,
                    "sigma": mechanism.noise_multiplier,
                    "noise_over_batch": over_batch,
                    "noise_norm": over_batch * math.sqrt(released),
                }
            )
    return found


def marked(plans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to plans whether each has the least noise against its batch of those as long.

    Plans are compared within equal epochs: fewer steps need less noise, and learn less.
    """
    least: dict[float, float] = {}
    for plan in plans:
        least[plan["epochs"]] = min(plan["noise_norm"], least.get(plan["epochs"], math.inf))
    return [{**plan, "is_least": plan["noise_norm"] <= least[plan["epochs"]]} for plan in plans]


def _with_method(config: Mapping[str, Any], method: str, is_remat: bool) -> dict[str, Any]:
    """A config, all of whose runs have one method."""
    found = copy.deepcopy(dict(config))
    for part in (found, *found.get("more", {}).values()):
        part["method"] = method
        if is_remat:
            part["model"] = {**part["model"], "remat": "layer"}
        for changes in part.get("runs", {}).values():
            changes.pop("method", None)
    return found


def _calibrated(settings: Settings, mechanism: Mechanism, accountant: str) -> float | None:
    """The noise multiplier that an accountant finds for a run's promise."""
    privacy = settings.privacy
    if not accounting.supports(mechanism.sampler, accountant):
        return None
    if accountant == mechanism.accountant and privacy.noise_multiplier is None:
        return mechanism.noise_multiplier
    return calibration.calibrate_noise(
        mechanism.sampler,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        steps=mechanism.steps,
        accountant=accountant,
    )


def _near(settings: Settings, mechanism: Mechanism) -> Iterator[dict[str, Any]]:
    """Plans of half and twice the epochs and batch, with their epsilons at the same sigma."""
    num_examples = mechanism.sampler.num_examples
    for epochs, batch in ((0.5, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 2.0)):
        other = _scaled(settings, epochs, batch, num_examples)
        if other is None:
            continue
        sampler, steps = _draws(other, num_examples)
        yield {
            "epochs": other.training.epochs,
            "batch": other.privacy.expected_batch_size,
            "steps": steps,
            "epsilon": accounting.epsilon(
                sampler,
                noise_multiplier=mechanism.noise_multiplier,
                steps=steps,
                delta=mechanism.delta,
                accountant=mechanism.accountant,
            ),
        }


def _scaled(settings: Settings, epochs: float, batch: float, num_examples: int) -> Settings | None:
    """A run with multiples of its epochs and batch; None where a batch is none of the rows."""
    privacy, training = settings.privacy, settings.training
    size = round(batch * privacy.expected_batch_size)
    if not 1 <= size <= num_examples:
        return None
    most = privacy.max_batch_size
    return dataclasses.replace(
        settings,
        privacy=dataclasses.replace(
            privacy,
            expected_batch_size=size,
            max_batch_size=None if most is None else round(batch * most),
            noise_multiplier=None,
        ),
        training=dataclasses.replace(training, epochs=epochs * training.epochs),
    )


def _draws(settings: Settings, num_examples: int) -> tuple[PoissonSampler, int]:
    """What draws a run's batches, and how many; nothing is calibrated."""
    privacy = settings.privacy
    rate = privacy.expected_batch_size / num_examples
    sampler = PoissonSampler(num_examples, rate, privacy.max_batch_size)
    return sampler, assemble.planned_steps(settings, num_examples)
