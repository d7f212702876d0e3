"""Runs a reversible network over new tokens with KV caches, in floats or exactly.

Axes: B batch, T tokens, S slots of a cache, D width, L reversible layers.
"""

from typing import Any

import jax
import jax.numpy as jnp

from memarc.models import backbone, exact
from memarc.models.coupled import Network, Streams
from memarc.models.layers import Cache
from memarc.ops import fixed_point
from memarc.ops.precision import wide
from memarc.typing import Array, Params

Caches = dict[str, Cache]
"""Name of a branch that attends -> its cache, stacked on L."""


def empty(net: Network, layers: int, rows: int, slots: int) -> Caches:
    """Zeros for every branch of a network that attends, of B rows and S slots."""
    return {
        name: backbone.empty_cache(net.config, layers, rows, slots)
        for name in net.coupling.branches
        if getattr(net.coupling, name).attends
    }


def extend(
    net: Network,
    adapters: Params,
    layers: Params,
    unit: Array | None,
    hidden: Array,
    start: Array,
    caches: Caches,
) -> tuple[Streams, Caches]:
    """Runs stacked coupled layers over new tokens; a signed coupling runs as the plain network.

    Args:
      net: The static part.
      adapters: By branch, stacked on L.
      layers: Stacked on L.
      unit: float32[D], of each channel of exact streams; None in floats.
      hidden: [B, T, D], the new tokens.
      start: int32[B], the slot of each row's first one.
      caches: Keys and values of the earlier tokens.

    Returns:
      Both last streams, float32 or wider, and the caches with the new tokens.
    """
    dtype, is_signed = wide(hidden.dtype), net.coupling.signed
    is_exact = unit is not None and not is_signed
    sign = jnp.zeros((hidden.shape[0], 1, 1), dtype) if is_signed else None
    grid = jnp.ones(hidden.shape[-1:]) if unit is None else unit

    def step(carry: tuple[Any, Array], stacked: Any) -> tuple[tuple[Any, Array], Caches]:
        (streams, outside), (adapter, layer, kept) = carry, stacked
        kept = dict(kept)

        def branch(which: str, x: Array) -> Array:
            function, given = getattr(net.coupling, which), x.astype(net.config.compute_dtype)
            y, more = function.extend(
                net.config, adapter[which], layer, given, start, kept.get(which)
            )
            if function.attends:
                kept[which] = more
            return y.astype(x.dtype)

        def rounded(which: str, x: Array) -> tuple[Array, Array]:
            y = branch(which, fixed_point.to_float(x, grid, dtype))
            return fixed_point.to_fixed(y, grid)

        if not is_exact:
            return (net.couple(branch, sign, streams), outside), kept
        streams, _, more = exact.couple(net, rounded, sign, streams)
        return (streams, outside + more), kept

    fixed, outside = fixed_point.to_fixed(hidden, grid)
    stream = fixed if is_exact else hidden.astype(dtype)
    carry = ((stream, stream), outside)
    (streams, outside), caches = jax.lax.scan(step, carry, (adapters, layers, caches))
    return exact.to_floats(streams, outside, grid, dtype) if is_exact else streams, caches
