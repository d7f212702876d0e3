"""Parameters of which a device holds a part, and gathers the whole where it is used.

Inside a `jax.shard_map`, a tuning method may hold a `Shard` wherever a plain array may be; layers
are applied to `whole` parameters. What was gathered is not kept for a backward pass that
computes a layer again.
"""

import dataclasses
from functools import partial
from typing import Any

import jax

from memarc.typing import Array, Params


@partial(jax.tree_util.register_dataclass, data_fields=["part"], meta_fields=["axis_name", "axis"])
@dataclasses.dataclass(frozen=True)
class Shard:
    """This device's part of an array.

    Attributes:
      part: The array, cut along one of its axes.
      axis_name: The mesh axis over which it is cut.
      axis: The cut axis, counted from the end (negative), so that stacking axes may come and go.
    """

    part: Array
    axis_name: str
    axis: int


def whole(params: Params) -> Params:
    """Gathers every `Shard` in a tree; other leaves are as they were."""

    def gather(leaf: Any) -> Array:
        if not isinstance(leaf, Shard):
            return leaf
        axis = leaf.part.ndim + leaf.axis
        return jax.lax.all_gather(leaf.part, leaf.axis_name, axis=axis, tiled=True)

    return jax.tree.map(gather, params, is_leaf=lambda x: isinstance(x, Shard))
