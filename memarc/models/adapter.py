"""Bottleneck adapters, in series after a dense map or parallel to a feed-forward block.

Series: Houlsby et al. 2019 (arXiv:1902.00751). Parallel: He et al. 2022 (arXiv:2110.04366).
An adapter parallel to a feed-forward block is the same function as R further hidden units in
that block, so it is built as two wider kernels.

Axes: L layers, D width, F feed-forward width, R bottleneck.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from memarc.models import backbone, partition
from memarc.models.config import BackboneConfig
from memarc.models.layers import Dense, activate, apply
from memarc.models.tuning import Tuning
from memarc.ops.linear import add_trailing, linear
from memarc.typing import Array, Params

SITES = {"attention": ("attention", "output"), "feed_forward": ("feed_forward", "output")}


@dataclasses.dataclass(frozen=True)
class AdapterOptions:
    """Bottleneck width R of each adapter."""

    bottleneck: int = 16

    def __post_init__(self):
        """Checks the bottleneck."""
        check_bottleneck(self.bottleneck)


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
        inner = activate(Dense(x.shape[-1], self.bottleneck, name="down")(x), self.config)
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


@partial(jax.tree_util.register_dataclass, data_fields=["base", "down"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class WiderOutput:
    """A structured kernel with R more outputs: [x @ base + bias, down(x)]."""

    base: Array
    down: Params

    def linear(self, x: Array, bias: Array | None) -> Array:
        """Maps x [..., D] to [..., F + R]."""
        extra = linear(x, self.down["kernel"], self.down["bias"])
        return jnp.concatenate([linear(x, self.base, bias), extra], axis=-1)


@partial(jax.tree_util.register_dataclass, data_fields=["base", "up", "up_bias"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class WiderInput:
    """A structured kernel with R more inputs, which ``up`` maps."""

    base: Array
    up: Array
    up_bias: Array

    def linear(self, x: Array, bias: Array | None) -> Array:
        """Maps x [..., F + R] to [..., D]."""
        wide = self.base.shape[0]
        y = linear(x[..., :wide], self.base, bias) + linear(x[..., wide:], self.up)
        return add_trailing(y, self.up_bias)


def in_series(layers: Params, site: str, adapter: Params, config: BackboneConfig) -> Params:
    """Puts an adapter after the last dense map of a block (a name of `SITES`)."""
    path = (*SITES[site], "kernel")
    kernel = SeriesKernel(partition.get(layers, path), adapter, config)
    return partition.replace(layers, path, kernel)


def in_parallel(layers: Params, adapter: Params) -> Params:
    """Puts an adapter parallel to the feed-forward block, inside its residual and norm."""
    block = layers["feed_forward"]
    first = WiderOutput(block["intermediate"]["kernel"], adapter["down"])
    second = WiderInput(block["output"]["kernel"], adapter["up_kernel"], adapter["up_bias"])
    layers = partition.replace(layers, ("feed_forward", "intermediate", "kernel"), first)
    return partition.replace(layers, ("feed_forward", "output", "kernel"), second)


def adapter(config: BackboneConfig, options: AdapterOptions) -> Tuning:
    """Freezes the backbone and trains an adapter after attention and after feed-forward."""

    def init(key, params):
        keys = jax.random.split(key, len(SITES))
        return {
            site: init_stack(config, options.bottleneck, config.layers, k)
            for site, k in zip(SITES, keys, strict=True)
        }, params

    def states(trainable, frozen, batch):
        layers = frozen["layers"]
        for site, stack in trainable.items():
            layers = in_series(layers, site, stack, config)
        return backbone.encode(config, {**frozen, "layers": layers}, batch)

    return Tuning(init, states, precompute=lambda frozen, batch: batch)
