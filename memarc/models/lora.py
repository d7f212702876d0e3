"""LoRA: a low-rank update beside frozen matrices (Hu et al. 2021, arXiv:2106.09685).

Axes: L layers, I inputs, O outputs, R rank.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from memarc.models import partition
from memarc.models.method import OfParameters
from memarc.ops.linear import StructuredKernel, linear
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


@partial(jax.tree_util.register_dataclass, data_fields=["base", "a", "b"], meta_fields=["scale"])
@dataclasses.dataclass(frozen=True)
class LowRankKernel:
    """A structured kernel: base [I, O] plus scale * a [I, R] @ b [R, O]."""

    base: Array | StructuredKernel
    a: Array
    b: Array
    scale: float

    def linear(self, x: Array, bias: Array | None) -> Array:
        """Maps x [..., I] to [..., O]; the product a @ b is never formed."""
        return linear(x, self.base, bias) + self.scale * linear(linear(x, self.a), self.b)

    def merged(self) -> np.ndarray:
        """The one kernel [.., I, O] that is the same map, float32, of a plain base."""
        update = np.asarray(self.a, np.float32) @ np.asarray(self.b, np.float32)
        return np.asarray(self.base, np.float32) + np.float32(self.scale) * update


@dataclasses.dataclass(frozen=True)
class Lora(OfParameters):
    """Freezes the backbone and trains low-rank updates; b starts at zero.

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

    def __post_init__(self) -> None:
        """Checks every option, and that the backbone has the targets."""
        if self.rank < 1:
            raise ValueError(f"LoRA rank is {self.rank}; it must be at least 1.")
        if not self.alpha > 0.0:  # Zero would train nothing and still take noise.
            raise ValueError(f"LoRA alpha is {self.alpha}; it must be positive.")
        unknown = sorted(set(self.targets) - set(TARGETS))
        if unknown or not self.targets:
            raise ValueError(f"LoRA targets {unknown or 'are empty'}; choose from {list(TARGETS)}.")
        if self.train not in ("both", "b"):
            raise ValueError(f"LoRA train is {self.train!r}; choose 'both' or 'b'.")
        if "gated" in self.targets and not self.config.parts.is_gated:
            raise ValueError(
                f"LoRA target 'gated' is not there: a {self.config.kind} backbone has no gate."
            )

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Draws {target: {"a", "b"}}; each "a" is among the drawn parameters if it is frozen."""
        keys = jax.random.split(key, len(self.targets))
        pairs = {
            target: _init_pair(k, partition.get(params["layers"], TARGETS[target]), self.rank)
            for target, k in zip(self.targets, keys, strict=True)
        }
        trainable, drawn = partition.split(
            pairs, lambda path: self.train == "both" or path[-1] == "b"
        )
        return trainable, {"backbone": params, "drawn": drawn}

    def parameters(self, trainable: Params, frozen: Params) -> Params:
        """Puts a `LowRankKernel` at every target of the backbone."""
        params, pairs = frozen["backbone"], partition.join(trainable, frozen["drawn"])
        return {**params, "layers": attach(params["layers"], pairs, self.alpha / self.rank)}


def attach(layers: Params, pairs: Params, scale: float) -> Params:
    """Puts low-rank kernels where layers (stacked or single) have the targets' plain ones."""
    for target, pair in pairs.items():
        path = (*TARGETS[target], "kernel")
        kernel = LowRankKernel(partition.get(layers, path), pair["a"], pair["b"], scale)
        layers = partition.replace(layers, path, kernel)
    return layers


def _init_pair(key: Array, dense: Params, rank: int) -> dict[str, Array]:
    """Draws a uniformly in +-1/sqrt(I), as the published code does; b is zero."""
    depth, inputs, outputs = dense["kernel"].shape
    bound = inputs**-0.5
    return {
        "a": jax.random.uniform(key, (depth, inputs, rank), minval=-bound, maxval=bound),
        "b": jnp.zeros((depth, rank, outputs)),
    }
