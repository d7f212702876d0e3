"""The optimizer and its learning-rate schedule, as optax transformations built from a config.

Everything here sees noised gradients only: it is chained behind the mechanism's transformation.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memarc.typing import PyTree

NAMES = ("adamw", "sgd")
SCHEDULES = ("constant", "linear", "cosine")

_SPARED = ("bias", "scale")
"""How names of leaves end that weight decay leaves alone."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How noised gradients become updates.

    Attributes:
      name: "adamw" or "sgd" (with momentum ``beta1``).
      learning_rate: Peak rate, above 0.
      schedule: After the warm-up: "constant", or "linear" or "cosine" decay to zero.
      warmup_fraction: Share of all steps in which the rate rises linearly, in [0, 1).
      weight_decay: Decoupled weight decay, at least 0, of all but biases and norms.
      beta1: Decay of the first moment, or momentum of "sgd"; in [0, 1).
      beta2: Decay of the second moment, in [0, 1); unused by "sgd".
      epsilon: Added to the root of the second moment; unused by "sgd".
      head_factor: The head's learning rate over that of the other parameters, above 0. A new head
        starts at nothing and must grow within few private steps, the others only adjust.
      head_first: Share of all steps, in [0, 1), in which the head moves alone. Through a head that
        says nothing yet, the others' gradients are noise, which Adam would blow up to full steps.
        Source: linear probing, then fine-tuning (Kumar et al. 2022, arXiv:2202.10054).
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "linear"
    warmup_fraction: float = 0.1
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    head_factor: float = 1.0
    head_first: float = 0.0

    def __post_init__(self) -> None:
        """Checks every field."""
        for field, choices in (("name", NAMES), ("schedule", SCHEDULES)):
            if getattr(self, field) not in choices:
                given = getattr(self, field)
                raise ValueError(f"optimizer.{field} is {given!r}; choose one of {choices}.")
        for field, low, high in (
            ("warmup_fraction", 0.0, 1.0),
            ("head_first", 0.0, 1.0),
            ("weight_decay", 0.0, math.inf),
            ("beta1", 0.0, 1.0),
            ("beta2", 0.0, 1.0),
        ):
            if not low <= getattr(self, field) < high:
                given = getattr(self, field)
                raise ValueError(f"optimizer.{field} is {given}; give {low} up to below {high}.")
        for field in ("learning_rate", "epsilon", "head_factor"):
            if not 0.0 < getattr(self, field) < math.inf:
                given = getattr(self, field)
                raise ValueError(f"optimizer.{field} is {given}; give a finite number above 0.")


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates made.

    Args:
      config: The peak rate and the shape of the schedule.
      steps: The number of updates of the whole plan.
    """
    warmup = round(config.warmup_fraction * steps)
    peak, rest = config.learning_rate, max(1, steps - warmup)
    decays = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest),
    }
    if not warmup:
        return decays[config.schedule]
    # One step ahead, because a first update at rate zero would spend privacy for nothing.
    rise = optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1))
    return optax.join_schedules([rise, decays[config.schedule]], [warmup])


def check_without_head(config: OptimizerConfig) -> None:
    """Raises ValueError if a model without a new head is to treat it otherwise than the rest.

    It would hold still all that is trained, and spend privacy on nothing.
    """
    for name, plain in (("head_first", 0.0), ("head_factor", 1.0)):
        given = getattr(config, name)
        if given != plain:
            raise ValueError(
                f"optimizer.{name} is {given}; this model gets no new head: give {plain}."
            )


def build(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Builds the transformation from noised gradients to updates.

    The head is what stands under "head" at the top of the tree; it alone is meant by
    ``head_factor`` and ``head_first``.

    Args:
      config: The optimizer and its schedule.
      steps: The number of updates of the whole plan.
    """
    rate = learning_rate(config, steps)
    if config.name == "adamw":
        optimizer = optax.adamw(
            rate,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=_decays,
        )
    else:
        optimizer = optax.chain(
            optax.add_decayed_weights(config.weight_decay, _decays),
            optax.sgd(rate, momentum=config.beta1),
        )
    rest_from = round(config.head_first * steps)
    parts = {
        "head": optax.scale(config.head_factor),
        "rest": optax.scale_by_schedule(
            lambda count: jnp.where(jnp.asarray(count) < rest_from, 0.0, 1.0)
        ),
    }
    return optax.chain(optimizer, optax.transforms.partition({**parts}, _parts))


def _decays(tree: PyTree) -> PyTree:
    """Which leaves decay: those that are no bias and no norm's scale, by their names."""

    def decays(path: tuple[Any, ...], leaf: Any) -> bool:
        del leaf
        return not (path and str(getattr(path[-1], "key", "")).endswith(_SPARED))

    return jax.tree_util.tree_map_with_path(decays, tree)


def _parts(tree: PyTree) -> PyTree:
    """Labels every leaf "head" or "rest" by its place at the top of the tree."""

    def part(path: tuple[Any, ...], leaf: Any) -> str:
        del leaf
        return "head" if path[:1] == (jax.tree_util.DictKey("head"),) else "rest"

    return jax.tree_util.tree_map_with_path(part, tree)
