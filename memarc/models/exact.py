"""Exact reversal: the coupled network on fixed-point streams, rebuilt bit for bit going back.

With lambda = 2^-k and [.] rounding to fixed point, a layer is

    y1 = (x1 >> k) + [F(x2)],   y2 = x2 + [G(y1)]        (k bits of x1 are kept)

or the variant that its coupling states; a centred one shifts x1 - x2 instead of x1. All that the
backward pass keeps are those bits and the last streams. It undoes and differentiates one layer
after the other. F and G are isolated (`memarc.ops.isolated`), because a compiler that fused them
with other work could round them otherwise than the forward pass did. Rounding counts as the
identity (straight-through).

A row whose streams leave the range or are not finite comes out as NaN, so it adds nothing.

Axes: B batch, T tokens, D width, L layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memarc.models.coupled import Network, Streams
from memarc.ops import fixed_point
from memarc.ops.isolated import isolated
from memarc.ops.precision import wide
from memarc.typing import Array, Params

Fixed = tuple[Array, Array]
"""(x1, x2), each int32[B, T, D]."""

Bits = tuple[Any, Any]
"""What each stream lost in one layer, uint8 as `fixed_point.halve` packs it; () if nothing."""

Stacked = tuple[Params, Params, Array | None]
"""Adapters, layer and sign of one layer, or of all, stacked on L."""


class Residuals(NamedTuple):
    """What the forward pass keeps.

    Attributes:
      adapters: The adapters, as they were given.
      layers: The layers, as they were given.
      mask: The mask, as it was given.
      signs: The signs, as they were given.
      unit: The units of the channels, as they were given.
      last: The last streams.
      bits: Packed lost bits, one pair a layer; an unscaled stream has none.
      outside: int32[B], values of each row that left the range.
    """

    adapters: Params
    layers: Params
    mask: Array
    signs: Array | None
    unit: Array
    last: Fixed
    bits: Bits
    outside: Array


def shifts(net: Network) -> tuple[int, int]:
    """(k of the first, k of the second stream); 0 where the coupling does not scale."""
    k = exponent(net.scale)
    coupling = net.coupling
    return (k if coupling.scale_first else 0), (k if coupling.scale_second else 0)


def exponent(scale: float) -> int:
    """The k of lambda = 2^-k.

    Raises:
      ValueError: If lambda is none of 1/2, 1/4, .., 1/256.
    """
    choices = {2.0**-k: k for k in range(1, 9)}
    if scale not in choices:
        raise ValueError(
            f"scale (lambda) is {scale}; exact reversal needs a power of two: choose one of "
            f"{list(choices)}, or arithmetic 'float'."
        )
    return choices[scale]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    unit: Array,
    hidden: Array,
) -> Streams:
    """Runs stacked coupled layers exactly.

    Args:
      net: The static part.
      adapters: By branch, stacked on L; differentiated.
      layers: Frozen backbone layers, stacked on L.
      mask: bool[B, T], True where a token is real.
      signs: float[L, B, 1, 1] of a signed coupling, -1 or 1; else None.
      unit: float32[D], of each channel of the streams, a power of two.
      hidden: float[B, T, D], both streams' start; differentiated.

    Returns:
      Both last streams as floats, NaN in rows that left the range.
    """
    return _run_forward(net, adapters, layers, mask, signs, unit, hidden)[0]


def _run_forward(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    unit: Array,
    hidden: Array,
) -> tuple[Streams, tuple[Residuals, Array]]:
    start, outside = fixed_point.to_fixed(hidden, unit)

    def step(carry: tuple[Fixed, Array], stacked: Stacked) -> tuple[tuple[Fixed, Array], Bits]:
        streams, outside = carry
        adapter, layer, sign = stacked
        streams, bits, more = forward(net, adapter, layer, mask, sign, unit, streams)
        return (streams, outside + more), bits

    carry = ((start, start), outside)
    (last, outside), bits = jax.lax.scan(step, carry, (adapters, layers, signs))
    out = to_floats(last, outside, unit, wide(hidden.dtype))
    return out, (Residuals(adapters, layers, mask, signs, unit, last, bits, outside), hidden[:0])


def _run_backward(
    net: Network, kept: tuple[Residuals, Array], cotangents: Streams
) -> tuple[Params, None, None, None, None, Array]:
    residuals, like = kept
    gradient, (d1, d2), _ = sweep_back(net, residuals, cotangents)
    return gradient, None, None, None, None, (d1 + d2).astype(like.dtype)


run.defvjp(_run_forward, _run_backward)


def to_floats(streams: Fixed, outside: Array, unit: Array, dtype: jnp.dtype) -> Streams:
    """Streams as floats [B, T, D]; NaN in rows with values out of range, counted in int32[B]."""
    is_bad = (outside > 0).reshape(-1, *[1] * (streams[0].ndim - 1))
    first, second = (fixed_point.to_float(x, unit, dtype) for x in streams)
    return jnp.where(is_bad, jnp.nan, first), jnp.where(is_bad, jnp.nan, second)


def sweep_back(
    net: Network, residuals: Residuals, cotangents: Streams
) -> tuple[Params, Streams, Fixed]:
    """The backward pass: each layer is undone and then differentiated, G first, then F.

    Args:
      net: The static part.
      residuals: What the forward pass has kept.
      cotangents: The cotangents of both last streams, float[B, T, D].

    Returns:
      The adapters' gradient, stacked on L; the cotangents of the first streams; and the rebuilt
      input streams of every layer, int32[L, B, T, D] each (unused outputs cost nothing).
    """

    def step(
        carry: tuple[Fixed, Streams], stacked: tuple[Params, Params, Array | None, Bits]
    ) -> tuple[tuple[Fixed, Streams], tuple[Params, Fixed]]:
        (streams, cotangents), (adapters, layer, sign, bits) = carry, stacked
        streams, cotangents, gradient = backward(
            net,
            adapters,
            layer,
            bits,
            residuals.mask,
            sign,
            residuals.unit,
            streams,
            cotangents,
        )
        return (streams, cotangents), (gradient, streams)

    (_, cotangents), (gradient, rebuilt) = jax.lax.scan(
        step,
        (residuals.last, cotangents),
        (residuals.adapters, residuals.layers, residuals.signs, residuals.bits),
        reverse=True,
    )
    return gradient, cotangents, rebuilt


def forward(
    net: Network,
    adapters: Params,
    layer: Params,
    mask: Array,
    sign: Array | None,
    unit: Array,
    streams: Fixed,
) -> tuple[Fixed, Bits, Array]:
    """One layer: (streams, lost bits, int32[B] values of each row that left the range)."""

    def branch(which: str, x: Array) -> tuple[Array, Array]:
        return _branch(net, which, adapters, layer, x, mask, sign, unit)

    return couple(net, branch, sign, streams)


def couple(
    net: Network,
    branch: Callable[[str, Array], tuple[Array, Array]],
    sign: Array | None,
    streams: Fixed,
) -> tuple[Fixed, Bits, Array]:
    """One layer whose F and G are given, int32 -> (int32, int32[B] values out of range)."""
    (first, second), (x1, x2) = shifts(net), streams
    f, out_f = branch("first", x2)
    centre = x2 if net.coupling.centred else jnp.zeros_like(x2)
    moved, bits1 = _halved(x1 - centre, first)
    y1, out_1 = fixed_point.add(_signed(moved, sign), f)
    y2, bits2 = _halved(x2, second)
    outside = out_f + out_1
    if net.coupling.second:
        g, out_g = branch("second", y1)
        y2, out_2 = fixed_point.add(y2, g)
        outside = outside + out_g + out_2
    streams = (y2, y1) if net.coupling.swap else (y1, y2)
    return streams, (bits1, bits2), outside


def backward(
    net: Network,
    adapters: Params,
    layer: Params,
    bits: Bits,
    mask: Array,
    sign: Array | None,
    unit: Array,
    streams: Fixed,
    cotangents: Streams,
) -> tuple[Fixed, Streams, Params]:
    """Undoes `forward` and pulls cotangents back: (input streams, their cotangents, gradient)."""
    (first, second), (a, b) = shifts(net), net.factors(sign)
    (y1, y2), (d1, d2) = streams, cotangents
    if net.coupling.swap:
        (y1, y2), (d1, d2) = (y2, y1), (d2, d1)
    gradient, moved = {}, y2
    if net.coupling.second:
        g, _ = _branch(net, "second", adapters, layer, y1, mask, sign, unit)
        moved = y2 - g
        through, theta = _pull_back(net, "second", adapters, layer, y1, mask, sign, unit, d2)
        d1 = d1 + through
        # Nothing of F begins before G is done with, or both would be in memory.
        moved, y1, d1, d2, theta = jax.lax.optimization_barrier((moved, y1, d1, d2, theta))
        gradient["second"] = theta
    x2 = _unhalved(moved, bits[1], second)
    f, _ = _branch(net, "first", adapters, layer, x2, mask, sign, unit)
    x1 = _unhalved(_signed(y1 - f, sign), bits[0], first)
    straight = b * d2
    if net.coupling.centred:
        x1, straight = x1 + x2, straight - a * d1
    x1, x2, d1 = jax.lax.optimization_barrier((x1, x2, d1))
    through, gradient["first"] = _pull_back(net, "first", adapters, layer, x2, mask, sign, unit, d1)
    return (x1, x2), (a * d1, straight + through), gradient


def _pull_back(
    net: Network,
    which: str,
    adapters: Params,
    layer: Params,
    x: Array,
    mask: Array,
    sign: Array | None,
    unit: Array,
    cotangent: Array,
) -> tuple[Array, Params]:
    """Pulls the cotangent of F's or G's output back: (to x, to the adapter)."""

    def branch(theta: Params, x: Array) -> Array:
        return net.branch(which, {which: theta}, layer, x, mask, sign)

    x = fixed_point.to_float(x, unit, cotangent.dtype)
    theta, through = jax.vjp(branch, adapters[which], x)[1](cotangent)
    return through, theta


def _branch(
    net: Network,
    which: str,
    adapters: Params,
    layer: Params,
    x: Array,
    mask: Array,
    sign: Array | None,
    unit: Array,
) -> tuple[Array, Array]:
    """F or G of a fixed-point stream, rounded alike wherever it stands: (int32, int32[B])."""
    dtype = wide(net.config.compute_dtype)

    def branch(state: tuple[Array, Array]) -> tuple[Array, Array]:
        x = fixed_point.to_float(state[0], unit, dtype)
        return fixed_point.to_fixed(net.branch(which, adapters, layer, x, mask, sign), unit)

    weights = (w for w in jax.tree.leaves(layer) if jnp.issubdtype(w.dtype, jnp.floating))
    some_weight = next(weights)  # If it is NaN, all is lost anyway.
    return isolated(branch, some_weight, (x, jnp.zeros(x.shape[:1], jnp.int32)))


def _signed(x: Array, sign: Array | None) -> Array:
    """Times -1 or 1, which multiplying again undoes."""
    return x if sign is None else x * sign.astype(jnp.int32)


def _halved(x: Array, times: int) -> tuple[Array, Any]:
    return fixed_point.halve(x, times) if times else (x, ())


def _unhalved(x: Array, bits: Any, times: int) -> Array:
    return fixed_point.unhalve(x, bits, times) if times else x
