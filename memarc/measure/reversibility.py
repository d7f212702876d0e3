"""Measures whether a reversible network comes back, and how far it starts from the backbone.

Axes: B batch, T tokens, D width, L layers.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memarc import batches
from memarc.models import backbone, coupled, exact, exact_range
from memarc.models.adapter import init_stack
from memarc.models.config import BackboneConfig
from memarc.models.coupled import Network, Streams
from memarc.models.couplings import COUPLINGS
from memarc.models.reversible import draw_signs
from memarc.ops import fixed_point
from memarc.typing import Array, Params, PyTree

_DISTANCE_LAMBDAS = (0.0625, 0.125, 0.25, 0.5)
SEED = 4
"""The random input has this seed, unless another is asked for."""

_ADAPTER_SCALE = 0.003
"""Standard deviation of what is added to adapters at their start, as private training does."""

_WIDER = {"bfloat16": "float32", "float32": "float64"}

Found = dict[str, Array]
"""Name -> number, as `measure` explains them."""


def measure(
    net: Network, params: Params, arithmetic: str, shape: tuple[int, int], seed: int = SEED
) -> dict[str, Any]:
    """Measures streams and gradients of one network, inside one compiled program.

    Args:
      net: The static part; its adapters are drawn here.
      params: The backbone's parameters.
      arithmetic: "exact" or "float".
      shape: (B, T) of the input, random tokens, which are public.
      seed: Of these tokens.

    Returns:
      mismatched_values, stream values that do not come back; max_stream_error, the largest
      difference; saturated_values, values that left the range; of exact arithmetic also
      saturated_layers, where (0: the start), and largest_value of the streams;
      gradient_errors, by layer, relative, against plain autodiff of the same coupled network;
      gradient_errors_WIDER and autodiff_errors_WIDER, the same of this network and of plain
      autodiff against autodiff in the next wider dtype, float32 or float64.
    """
    *network, hidden = _problem(net, params, shape, seed)
    unit = jax.jit(exact_range.units, static_argnums=0)(net, *network, hidden)
    given = (*network, unit, hidden)
    probe = exact_probe if arithmetic == "exact" else _float_probe
    found, gradient = jax.jit(probe, static_argnums=0)(net, *given)
    found = {name: value.tolist() for name, value in found.items()}
    if arithmetic == "exact":
        outside, largest = jax.jit(exact_range.survey, static_argnums=0)(net, *given)
        found["saturated_layers"] = [i for i, is_out in enumerate(outside.tolist()) if is_out]
        found["largest_value"] = float(f"{largest.max():.4g}")
    plainly = jax.jit(_plain_gradient, static_argnums=(0, 1))
    is_rounded, wider = arithmetic == "exact", _WIDER[net.config.dtype]
    same = plainly(net, is_rounded, *given)
    with jax.enable_x64(wider == "float64"):
        best = plainly(_in(net, wider), is_rounded, *_widened(given, wider))
    return {
        **found,
        "gradient_errors": _errors(gradient, same),
        f"gradient_errors_{wider}": _errors(gradient, best),
        f"autodiff_errors_{wider}": _errors(same, best),
    }


def _in(net: Network, dtype: str) -> Network:
    """The network, computing in another dtype."""
    return dataclasses.replace(net, config=dataclasses.replace(net.config, dtype=dtype))


def _widened(tree: PyTree, dtype: str) -> PyTree:
    """A tree whose floats are of another dtype."""

    def widen(x: Array) -> Array:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(widen, tree)


def _problem(
    net: Network, params: Params, shape: tuple[int, int], seed: int
) -> tuple[Params, Params, Array, Array | None, Array]:
    """Adapters that matter, layers, mask, signs and hidden states of a network."""
    adapters = {
        name: init_stack(net.config, 16, net.config.layers, jax.random.key(seed))
        for seed, name in enumerate(net.coupling.branches)
    }
    leaves, tree = jax.tree.flatten(adapters)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    adapters = tree.unflatten(
        x + _ADAPTER_SCALE * jax.random.normal(key, x.shape)
        for x, key in zip(leaves, keys, strict=True)
    )
    hidden = random_hidden(net.config, params, shape, seed)
    signs = None
    if net.coupling.signed:
        coins = jax.random.bits(jax.random.key(5), (shape[0], 2))
        signs = draw_signs(coins, net.config.layers)
    layers = backbone.layers_of(net.config, params)
    return adapters, layers, jnp.ones(shape, bool), signs, hidden


def distances(
    config: BackboneConfig, params: Params, shape: tuple[int, int]
) -> list[dict[str, Any]]:
    """Measures how far each coupling starts from the pre-trained function.

    Args:
      config: Sizes of the backbone.
      params: The backbone's parameters; adapters add nothing.
      shape: (B, T) of the input, random tokens, which are public.

    Returns:
      For each coupling and lambda, the last state's relative error and mean cosine.
    """
    adapter = init_stack(config, 1, config.layers, jax.random.key(0))
    hidden = random_hidden(config, params, shape)
    mask, layers = jnp.ones(hidden.shape[:2], bool), backbone.layers_of(config, params)
    plain = backbone.run_layers(config, layers, hidden, mask).astype(jnp.float32)
    lines = []
    for name, coupling in COUPLINGS.items():
        adapters = dict.fromkeys(coupling.branches, adapter)
        signs = jnp.zeros((config.layers, shape[0], 1, 1)) if coupling.signed else None
        for scale in (0.5,) if coupling.signed else _DISTANCE_LAMBDAS:
            net = Network(config, coupling, scale, 1)
            given = (adapters, layers, mask, signs)
            unit = jax.jit(exact_range.units, static_argnums=0)(net, *given, hidden)
            streams = jax.jit(partial(exact.run, net))(*given, unit, hidden)
            last = coupled.finish(coupling, "newest", streams).astype(jnp.float32)
            norms = jnp.linalg.norm(last, axis=-1) * jnp.linalg.norm(plain, axis=-1)
            lines.append(
                {
                    "coupling": name,
                    "lambda": scale,
                    "relative_error": (
                        jnp.linalg.norm(last - plain) / jnp.linalg.norm(plain)
                    ).item(),
                    "mean_cosine": ((last * plain).sum(-1) / norms).mean().item(),
                }
            )
    return lines


def random_hidden(
    config: BackboneConfig, params: Params, shape: tuple[int, int], seed: int = SEED
) -> Array:
    """Embeddings of random tokens, which are public: float32[B, T, D]."""
    batch = batches.random(
        batches.CLASSIFICATION, jax.random.key(seed), *shape, vocab_size=config.vocab_size
    )
    return backbone.embed(config, params, batch).astype(jnp.float32)


def _loss(unit: Array, streams: Streams) -> Array:
    """A smooth function of both last streams, each channel by what it reached on public tokens.

    A head reads normed states; without that, what rounds a channel of 20,000 in bfloat16 would be
    all that a gradient shows.
    """
    reached = unit * (fixed_point.LIMIT / exact_range.HEADROOM)
    scaled = (x / reached.astype(x.dtype).reshape(*[1] * (x.ndim - 1), -1) for x in streams)
    return sum((jnp.sum(jnp.sin(x)) for x in scaled), jnp.zeros((), streams[0].dtype))


def _cotangents(unit: Array, streams: Streams) -> Streams:
    """The cotangents of that function."""
    return jax.grad(partial(_loss, unit))(streams)


def exact_probe(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    unit: Array,
    hidden: Array,
) -> tuple[Found, Params]:
    """Runs the exact network there and back.

    Args:
      net: The static part.
      adapters: By branch, stacked on L.
      layers: The backbone's layers, stacked on L.
      mask: bool[B, T].
      signs: [L, B, 1, 1] of a signed coupling, else None.
      unit: float32[D], of each channel.
      hidden: float[B, T, D].

    Returns:
      What was found, and the adapters' gradient.
    """
    start, outside = fixed_point.to_fixed(hidden, unit)

    def step(streams: exact.Fixed, stacked: exact.Stacked) -> tuple[exact.Fixed, Any]:
        adapter, layer, sign = stacked
        out, bits, more = exact.forward(net, adapter, layer, mask, sign, unit, streams)
        return out, (streams, bits, more)

    last, (inputs, bits, more) = jax.lax.scan(step, (start, start), (adapters, layers, signs))
    kept = exact.Residuals(adapters, layers, mask, signs, unit, last, bits, outside + more.sum(0))
    floats = jax.tree.map(lambda x: fixed_point.to_float(x, unit, hidden.dtype), last)
    gradient, _, rebuilt = exact.sweep_back(net, kept, _cotangents(unit, floats))
    return _compare(inputs, rebuilt, unit) | {"saturated_values": kept.outside.sum()}, gradient


def _float_probe(
    net: Network,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    unit: Array,
    hidden: Array,
) -> tuple[Found, Params]:
    def step(streams: Streams, stacked: exact.Stacked) -> tuple[Streams, Streams]:
        adapter, layer, sign = stacked
        return net.forward(adapter, layer, mask, sign, streams), streams

    def back(
        carry: tuple[Streams, Streams], stacked: exact.Stacked
    ) -> tuple[tuple[Streams, Streams], tuple[Streams, Params]]:
        (streams, cotangents), (adapter, layer, sign) = carry, stacked
        streams, cotangents, gradient = coupled.layer_backward(
            net, adapter, layer, mask, sign, streams, cotangents
        )
        return (streams, cotangents), (streams, gradient)

    last, inputs = jax.lax.scan(step, (hidden, hidden), (adapters, layers, signs))
    _, (rebuilt, gradient) = jax.lax.scan(
        back, (last, _cotangents(unit, last)), (adapters, layers, signs), reverse=True
    )
    found = _compare(inputs, rebuilt, jnp.ones_like(unit))
    return found | {"saturated_values": jnp.zeros((), jnp.int32)}, gradient


def _compare(inputs: tuple[Array, Array], rebuilt: tuple[Array, Array], unit: Array) -> Found:
    """How many values of two streams [L, B, T, D] differ, and by how much at most."""
    pairs = list(zip(inputs, rebuilt, strict=True))
    differences = (a.astype(jnp.float32) - b.astype(jnp.float32) for a, b in pairs)
    errors = [
        fixed_point.to_float(jnp.abs(x), unit, jnp.dtype("float32")).max() for x in differences
    ]
    return {
        "mismatched_values": jnp.stack([(a != b).sum() for a, b in pairs]).sum(),
        "max_stream_error": jnp.stack(errors).max(),
    }


def _plain_gradient(
    net: Network,
    is_rounded: bool,
    adapters: Params,
    layers: Params,
    mask: Array,
    signs: Array | None,
    unit: Array,
    hidden: Array,
) -> Params:
    """Plain autodiff of the same network; rounding to fixed point counts as the identity."""
    coupling = net.coupling

    def rounded(x: Array, how: Callable[[Array], Array]) -> Array:
        along = unit.reshape(*[1] * (x.ndim - 1), -1)
        nearest = how(x / along) * along
        return x + jax.lax.stop_gradient(nearest - x) if is_rounded else x

    def step(streams: Streams, stacked: exact.Stacked) -> tuple[Streams, None]:
        (x1, x2), (adapter, layer, sign) = streams, stacked
        a, b = net.factors(None if sign is None else jnp.ones_like(sign))
        one = 1.0 if sign is None else sign
        centre = x2 if coupling.centred else jnp.zeros_like(x2)
        y1 = one * rounded(a * (x1 - centre), jnp.floor)
        y1 = y1 + rounded(net.branch("first", adapter, layer, x2, mask, sign), jnp.round)
        y2 = rounded(b * x2, jnp.floor)
        if coupling.second:
            y2 = y2 + rounded(net.branch("second", adapter, layer, y1, mask, sign), jnp.round)
        return ((y2, y1) if coupling.swap else (y1, y2)), None

    def loss(adapters: Params) -> Array:
        start = rounded(hidden, jnp.round)
        streams, _ = jax.lax.scan(step, (start, start), (adapters, layers, signs))
        return _loss(unit, streams)

    return jax.grad(loss)(adapters)


def _errors(got: Params, wanted: Params) -> list[float]:
    """Relative error of every layer's whole gradient."""

    def flat(tree: Params) -> np.ndarray:
        leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
        return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)

    got_all, wanted_all = flat(got), flat(wanted)
    errors = np.linalg.norm(got_all - wanted_all, axis=1) / np.linalg.norm(wanted_all, axis=1)
    return [float(f"{x:.3g}") for x in errors]
