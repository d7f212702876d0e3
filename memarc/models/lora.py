"""LoRA: a low-rank update beside frozen matrices (Hu et al. 2021, arXiv:2106.09685).

Axes: L layers, I inputs, O outputs, R rank.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from memarc.models import backbone, partition
from memarc.models.config import BackboneConfig
from memarc.models.tuning import Tuning
from memarc.ops.linear import linear
from memarc.typing import Array, Params

TARGETS = {
    "query": ("attention", "query"),
    "key": ("attention", "key"),
    "value": ("attention", "value"),
    "attention_output": ("attention", "output"),
    "intermediate": ("feed_forward", "intermediate"),
    "output": ("feed_forward", "output"),
}


@dataclasses.dataclass(frozen=True)
class LoraOptions:
    """Rank R, scale alpha / R, and the matrices that get an update (names of `TARGETS`)."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "value")

    def __post_init__(self):
        """Checks every field."""
        if self.rank < 1:
            raise ValueError(f"LoRA rank is {self.rank}; it must be at least 1.")
        if not self.alpha > 0.0:  # Zero would train nothing and still take noise.
            raise ValueError(f"LoRA alpha is {self.alpha}; it must be positive.")
        unknown = sorted(set(self.targets) - set(TARGETS))
        if unknown or not self.targets:
            raise ValueError(f"LoRA targets {unknown or 'are empty'}; choose from {list(TARGETS)}.")


@partial(jax.tree_util.register_dataclass, data_fields=["base", "a", "b"], meta_fields=["scale"])
@dataclasses.dataclass(frozen=True)
class LowRankKernel:
    """A structured kernel: base [I, O] plus scale * a [I, R] @ b [R, O]."""

    base: Array
    a: Array
    b: Array
    scale: float

    def linear(self, x: Array, bias: Array | None) -> Array:
        """Maps x [..., I] to [..., O]; the product a @ b is never formed."""
        return linear(x, self.base, bias) + self.scale * linear(linear(x, self.a), self.b)


def lora(config: BackboneConfig, options: LoraOptions) -> Tuning:
    """Freezes the backbone and trains low-rank updates; b starts at zero."""

    def init(key, params):
        keys = jax.random.split(key, len(options.targets))
        return {
            target: _init_pair(k, partition.get(params["layers"], TARGETS[target]), options.rank)
            for target, k in zip(options.targets, keys, strict=True)
        }, params

    def states(trainable, frozen, batch):
        layers = attach(frozen["layers"], trainable, options.alpha / options.rank)
        return backbone.encode(config, {**frozen, "layers": layers}, batch)

    return Tuning(init, states, precompute=lambda frozen, batch: batch)


def attach(layers: Params, pairs: Params, scale: float) -> Params:
    """Puts low-rank kernels where layers (stacked or single) have the targets' plain ones."""
    for target, pair in pairs.items():
        path = (*TARGETS[target], "kernel")
        kernel = LowRankKernel(partition.get(layers, path), pair["a"], pair["b"], scale)
        layers = partition.replace(layers, path, kernel)
    return layers


def _init_pair(key, dense, rank):
    """Draws a uniformly in +-1/sqrt(I), as the published code does; b is zero."""
    depth, inputs, outputs = dense["kernel"].shape
    bound = inputs**-0.5
    return {
        "a": jax.random.uniform(key, (depth, inputs, rank), minval=-bound, maxval=bound),
        "b": jnp.zeros((depth, rank, outputs)),
    }
