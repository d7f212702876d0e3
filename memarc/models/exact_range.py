"""The range of the streams of exact reversal: chosen on public inputs, and checked on them.

A few channels of a pre-trained network, mostly at the first token, are hundreds of times as large
as the others ("massive activations", Sun et al. 2024, arXiv:2402.17762). So every channel has a
unit of its own, in which the largest value of random tokens leaves room for real ones.

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

HEADROOM = 16.0
"""How far a channel reaches beyond the largest value that it had on public tokens."""

_LEAST = 2.0**-6
"""The least value that a channel reaches before head-room, whatever it had."""


def units(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    hidden: Array,
) -> Array:
    """Chooses the unit of every channel by the streams of a public input, in floats.

    Args:
      net: The static part.
      adapters: Adapters by branch, stacked on L.
      layers: Frozen backbone layers, stacked on L.
      mask: bool[B, T].
      signs: [L, B, 1, 1] of a signed coupling, else None.
      hidden: [B, T, D], public.

    Returns:
      Powers of two, float32[D]. A channel reaches `HEADROOM` times its largest value, and at least
      as far as the median channel does.
    """

    def largest(streams: Sequence[Array]) -> Array:
        x = jnp.abs(jnp.stack(streams).astype(jnp.float32))
        return x.reshape(-1, x.shape[-1]).max(0)

    def step(streams: Streams, stacked: exact.Stacked) -> tuple[Streams, Array]:
        adapter, layer, sign = stacked
        streams = net.forward(adapter, layer, mask, sign, streams)
        return streams, largest(streams)

    floats = hidden.astype(wide(hidden.dtype))
    _, reached = jax.lax.scan(step, (floats, floats), (adapters, layers, signs))
    found = jnp.maximum(largest((floats,)), reached.max(0))
    least = jnp.maximum(jnp.median(found), _LEAST)
    return fixed_point.unit_of(HEADROOM * jnp.maximum(found, least))


def check_range(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    unit: Array,
    hidden: Array,
) -> None:
    """Raises ValueError if streams leave the fixed-point range on a public input.

    Args:
      net: The static part.
      adapters: Adapters by branch, stacked on L.
      layers: Frozen backbone layers, stacked on L.
      mask: bool[B, T].
      signs: [L, B, 1, 1] of a signed coupling, else None.
      unit: float32[D], of each channel.
      hidden: [B, T, D], public.

    Raises:
      ValueError: Naming the first layer, how far its streams reach, and what to change.
    """
    compiled = jax.jit(survey, static_argnums=0)
    found = compiled(net, adapters, layers, mask, signs, unit, hidden)
    outside, largest = jax.device_get(found)
    if not outside.any():
        return
    layer = int(outside.argmax())
    reach = fixed_point.LIMIT * float(unit.max())
    where = "The start" if layer == 0 else f"Layer {layer} of the {outside.size - 1} reversible"
    raise ValueError(
        f"{where} leaves the fixed-point range on public rows: a value reaches "
        f"{largest[layer]:.4g}, the widest channel's range ends at {reach:.4g}. Choose coupling "
        "'centred', a smaller scale (lambda), or arithmetic 'float'."
    )


def survey(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    unit: Array,
    hidden: Array,
) -> tuple[Array, Array]:
    """By layer, the start first: whether a value leaves the range, and the largest in floats.

    Args: as for `check_range`.

    Returns:
      bool[L + 1], and float[L + 1].
    """
    start, outside = fixed_point.to_fixed(hidden, unit)

    def largest(streams: Sequence[Array]) -> Array:
        return jnp.stack([jnp.abs(x).max() for x in streams]).max()

    def step(
        carry: tuple[exact.Fixed, Streams], stacked: exact.Stacked
    ) -> tuple[tuple[exact.Fixed, Streams], tuple[Array, Array]]:
        fixed, floats = carry
        adapter, layer, sign = stacked
        fixed, _, more = exact.forward(net, adapter, layer, mask, sign, unit, fixed)
        floats = net.forward(adapter, layer, mask, sign, floats)
        return (fixed, floats), ((more > 0).any(), largest(floats))

    floats = hidden.astype(wide(hidden.dtype))
    carry = ((start, start), (floats, floats))
    _, (is_outside, reached) = jax.lax.scan(step, carry, (adapters, layers, signs))
    first = (outside > 0).any()[None], largest((floats,))[None]
    return jnp.concatenate([first[0], is_outside]), jnp.concatenate([first[1], reached])
