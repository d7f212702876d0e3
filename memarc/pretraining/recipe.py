"""How a backbone is pre-trained: batches, steps, learning rate, and what it starts from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from memarc.models import pretrained

POSITIONS = ("random", "waves")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a backbone is trained on public rows.

    Attributes:
      seed: Seed of the start and of the draws.
      positions: What the table of positions starts as: "random", or "waves" (`waves`).
      initial_scale: Random weights are N(0, (0.02 times this)^2).
      batch_tokens: Tokens of a batch, about.
      steps: Updates in one cycle of the learning rate.
      cycles: Cycles of the learning rate; the folder is written after each.
      warmup_steps: Updates of a cycle in which the rate rises.
      learning_rate: Peak rate, from which it falls to zero by a cosine.
      weight_decay: Decoupled weight decay.
      storage_dtype: Dtype of the saved weights.
    """

    seed: int
    positions: str
    initial_scale: float
    batch_tokens: int
    steps: int
    cycles: int
    warmup_steps: int
    learning_rate: float
    weight_decay: float
    storage_dtype: str

    def __post_init__(self) -> None:
        """Checks what would else fail late, or mean something else."""
        if self.storage_dtype not in pretrained.STORAGE_DTYPES:
            choices = tuple(pretrained.STORAGE_DTYPES)
            raise ValueError(
                f"config.storage_dtype is {self.storage_dtype!r}; choose one of {choices}."
            )
        if self.positions not in POSITIONS:
            raise ValueError(f"config.positions is {self.positions!r}; choose one of {POSITIONS}.")
        for name, least in (("batch_tokens", 1), ("warmup_steps", 0), ("steps", 1), ("cycles", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"config.{name} is {getattr(self, name)}; give at least {least}.")
        if self.steps <= self.warmup_steps:
            raise ValueError(
                f"config.steps is {self.steps}; give more than config.warmup_steps, "
                f"{self.warmup_steps}."
            )


def parse(config: Mapping[str, Any]) -> Recipe:
    """The recipe within a config of configs/pretrain_*.py.

    Raises:
      ValueError: For a value that would fail late, or mean something else.
    """
    recipe = Recipe(**{field.name: config[field.name] for field in dataclasses.fields(Recipe)})
    if recipe.positions == "waves" and config["backbone"].get("kind") == "llama":
        raise ValueError("config.positions is 'waves', but a llama has no table; give 'random'.")
    return recipe
