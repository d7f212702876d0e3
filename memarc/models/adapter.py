"""Bottleneck adapters, and the method that puts them in series after dense maps.

Source: Houlsby et al. 2019 (arXiv:1902.00751).

Axes: L layers, D width, R bottleneck.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from memarc.models import partition
from memarc.models.config import BackboneConfig
from memarc.models.layers import Dense, activate, apply
from memarc.models.method import OfParameters
from memarc.ops.linear import linear
from memarc.typing import Array, Params

SITES = {"attention": ("attention", "output"), "feed_forward": ("feed_forward", "output")}


def check_bottleneck(bottleneck: int) -> None:
    """Raises ValueError for a bottleneck that is not positive."""
    if bottleneck < 1:
        raise ValueError(f"Adapter bottleneck is {bottleneck}; it must be at least 1.")


class Adapter(nn.Module):
    """``up(act(down(x)))``; ``up`` starts at zero, so a new adapter adds nothing."""

    config: BackboneConfig
    bottleneck: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., D] to [..., D]."""
        inner = Dense(x.shape[-1], self.bottleneck, name="down")(x)
        inner = activate(inner, self.config.activation)
        kernel = self.param("up_kernel", nn.initializers.zeros, (self.bottleneck, x.shape[-1]))
        bias = self.param("up_bias", nn.initializers.zeros, (x.shape[-1],))
        return linear(inner, kernel, bias)


def init_stack(config: BackboneConfig, bottleneck: int, depth: int, key: Array) -> Params:
    """Draws ``depth`` adapters stacked on a leading axis."""
    x = jnp.zeros((1, config.width))
    keys = jax.random.split(key, depth)
    return jax.vmap(lambda k: Adapter(config, bottleneck).init(k, x)["params"])(keys)


def run(config: BackboneConfig, params: Params, x: Array) -> Array:
    """Applies one adapter of any bottleneck to x [..., D]."""
    return apply(Adapter(config, params["up_kernel"].shape[-2]), params, x)


@partial(jax.tree_util.register_dataclass, data_fields=["base", "inner"], meta_fields=["config"])
@dataclasses.dataclass(frozen=True)
class SeriesKernel:
    """A structured kernel: a dense map, then ``y + adapter(y)``."""

    base: Array
    inner: Params
    config: BackboneConfig

    def linear(self, x: Array, bias: Array | None) -> Array:
        """Maps x [..., I] to [..., D]."""
        y = linear(x, self.base, bias)
        return y + run(self.config, self.inner, y)


def in_series(layers: Params, site: str, adapter: Params, config: BackboneConfig) -> Params:
    """Puts an adapter after the last dense map of a block (a name of `SITES`)."""
    path = (*SITES[site], "kernel")
    kernel = SeriesKernel(partition.get(layers, path), adapter, config)
    return partition.replace(layers, path, kernel)


@dataclasses.dataclass(frozen=True)
class SeriesAdapter(OfParameters):
    """Freezes the backbone and trains an adapter after attention and after feed-forward.

    Attributes:
      bottleneck: R, width of every adapter.
    """

    bottleneck: int = 16

    def __post_init__(self) -> None:
        """Checks the bottleneck."""
        check_bottleneck(self.bottleneck)

    def init(self, key: Array, params: Params) -> tuple[Params, Params]:
        """Draws a stack of adapters for each of `SITES`; all of the backbone is frozen."""
        keys = jax.random.split(key, len(SITES))
        return {
            site: init_stack(self.config, self.bottleneck, self.config.layers, k)
            for site, k in zip(SITES, keys, strict=True)
        }, {"backbone": params, "drawn": {}}

    def parameters(self, trainable: Params, frozen: Params) -> Params:
        """Puts a `SeriesKernel` at both sites of the backbone."""
        layers = frozen["backbone"]["layers"]
        for site, stack in trainable.items():
            layers = in_series(layers, site, stack, self.config)
        return {**frozen["backbone"], "layers": layers}
