"""LoRA: a low-rank update beside frozen matrices (Hu et al. 2021, arXiv:2106.09685).

Axes: L layers, I inputs, O outputs, R rank.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from memarc.models import partition
from memarc.models.config import BackboneConfig
from memarc.models.tuning import Tuning, of_parameters
from memarc.ops.linear import linear
from memarc.typing import Array, Params

TARGETS = {
    "query": ("attention", "query"),
    "key": ("attention", "key"),
    "value": ("attention", "value"),
    "attention_output": ("attention", "output"),
    "intermediate": ("feed_forward", "intermediate"),
    "gated": ("feed_forward", "gated"),
    "output": ("feed_forward", "output"),
}


@dataclasses.dataclass(frozen=True)
class LoraOptions:
    """Rank, scale, place and trained factors of the updates.

    Attributes:
      rank: R.
      alpha: The update is alpha / R times a @ b.
      targets: The matrices that get an update (names of `TARGETS`).
      train: "both" factors, or "b" alone: a stays as drawn, so half as many coordinates take
        noise and no noise is multiplied by noise (FFA-LoRA, Sun et al. 2024, arXiv:2403.12313).
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "value")
    train: str = "both"

    def __post_init__(self):
        """Checks every field."""
        if self.rank < 1:
            raise ValueError(f"LoRA rank is {self.rank}; it must be at least 1.")
        if not self.alpha > 0.0:  # Zero would train nothing and still take noise.
            raise ValueError(f"LoRA alpha is {self.alpha}; it must be positive.")
        unknown = sorted(set(self.targets) - set(TARGETS))
        if unknown or not self.targets:
            raise ValueError(f"LoRA targets {unknown or 'are empty'}; choose from {list(TARGETS)}.")
        if self.train not in ("both", "b"):
            raise ValueError(f"LoRA train is {self.train!r}; choose 'both' or 'b'.")


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
    """Freezes the backbone and trains low-rank updates; b starts at zero.

    Raises:
      ValueError: If the backbone lacks a target.
    """
    if "gated" in options.targets and not config.parts.is_gated:
        raise ValueError(f"LoRA target 'gated' is not there: a {config.kind} backbone has no gate.")

    def init(key, params):
        keys = jax.random.split(key, len(options.targets))
        pairs = {
            target: _init_pair(k, partition.get(params["layers"], TARGETS[target]), options.rank)
            for target, k in zip(options.targets, keys, strict=True)
        }
        kept = ("a",) if options.train == "b" else ()
        frozen = {target: {name: pair.pop(name) for name in kept} for target, pair in pairs.items()}
        return pairs, {"backbone": params, "pairs": frozen}

    def parameters(trainable, frozen):
        pairs = {target: {**frozen["pairs"][target], **trainable[target]} for target in trainable}
        params = frozen["backbone"]
        layers = attach(params["layers"], pairs, options.alpha / options.rank)
        return {**params, "layers": layers}

    return of_parameters(config, init, parameters)


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
