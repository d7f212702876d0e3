"""Whether the streams of exact reversal stay within the fixed-point range, on a public input.

Axes: B batch, T tokens, D width, L layers.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from memarc.models import exact
from memarc.models.coupled import Network, Streams
from memarc.ops import fixed_point
from memarc.ops.precision import wide
from memarc.typing import Array, Params


def check_range(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    hidden: Array,
) -> None:
    """Raises ValueError if streams leave the fixed-point range on a public input.

    Args:
      net: The static part.
      adapters: Adapters by branch, stacked on L.
      layers: Frozen backbone layers, stacked on L.
      mask: bool[B, T].
      signs: [L, B, 1, 1] of a signed coupling, else None.
      hidden: [B, T, D], public.

    Raises:
      ValueError: Naming the first layer, how far its streams reach, and what to change.
    """
    compiled = jax.jit(survey, static_argnums=0)
    found = compiled(net, adapters, layers, mask, signs, hidden)
    outside, largest = jax.device_get(found)
    if not outside.any():
        return
    layer = int(outside.argmax())
    reach = fixed_point.LIMIT * 2.0**-fixed_point.FRACTION_BITS
    where = "The start" if layer == 0 else f"Layer {layer} of the {outside.size - 1} reversible"
    raise ValueError(
        f"{where} leaves the fixed-point range on random tokens: a value reaches "
        f"{largest[layer]:.4g}, the range ends at {reach:.4g}. Choose coupling 'centred', a "
        "smaller scale (lambda), or arithmetic 'float'."
    )


def survey(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    hidden: Array,
) -> tuple[Array, Array]:
    """By layer, the start first: whether a value leaves the range, and the largest in floats.

    Args: as for `check_range`.

    Returns:
      bool[L + 1], and float[L + 1].
    """
    start, outside = fixed_point.to_fixed(hidden)

    def largest(streams: Sequence[Array]) -> Array:
        return jnp.stack([jnp.abs(x).max() for x in streams]).max()

    def step(
        carry: tuple[exact.Fixed, Streams], stacked: exact.Stacked
    ) -> tuple[tuple[exact.Fixed, Streams], tuple[Array, Array]]:
        fixed, floats = carry
        adapter, layer, sign = stacked
        fixed, _, more = exact.forward(net, adapter, layer, mask, sign, fixed)
        floats = net.forward(adapter, layer, mask, sign, floats)
        return (fixed, floats), ((more > 0).any(), largest(floats))

    floats = hidden.astype(wide(hidden.dtype))
    carry = ((start, start), (floats, floats))
    _, (is_outside, reached) = jax.lax.scan(step, carry, (adapters, layers, signs))
    first = (outside > 0).any()[None], largest((floats,))[None]
    return jnp.concatenate([first[0], is_outside]), jnp.concatenate([first[1], reached])
