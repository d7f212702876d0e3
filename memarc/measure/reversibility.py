"""Measures whether a reversible network comes back, and how far it starts from the backbone.

Axes: B batch, T tokens, D width, L layers.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from memarc.models import backbone, exact, reversible
from memarc.models.adapter import init_stack
from memarc.models.config import BackboneConfig
from memarc.models.couplings import COUPLINGS
from memarc.models.reversible import Network
from memarc.ops import fixed_point
from memarc.typing import Array, Params

_DISTANCE_LAMBDAS = (0.0625, 0.125, 0.25, 0.5)
_ADAPTER_SCALE = 0.02


def measure(net: Network, params: Params, arithmetic: str, shape: tuple[int, int]) -> dict:
    """Measures streams and gradients of one network, inside one compiled program.

    Args:
      net: The static part; its adapters are drawn here, so that they matter.
      params: The backbone's parameters.
      arithmetic: "exact" or "float".
      shape: (B, T) of the input, random tokens, which are public.

    Returns:
      mismatched_values, stream values that do not come back; max_stream_error, the largest
      difference; saturated_values, values that left the range; of exact arithmetic also
      saturated_layers, where (0: the start), and largest_value of the streams;
      gradient_errors, by layer, relative, against plain autodiff of the same coupled network;
      gradient_errors_float32 and autodiff_errors_float32, the same of this network and of plain
      autodiff against autodiff in float32.
    """
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
    hidden = random_hidden(net.config, params, shape)
    mask = jnp.ones(hidden.shape[:2], bool)
    signs = None
    if net.coupling.signed:
        coins = jax.random.bits(jax.random.key(5), (shape[0], 2))
        signs = reversible.draw_signs(coins, net.config.layers)
    given = (adapters, params["layers"], mask, signs, hidden)
    probe = exact_probe if arithmetic == "exact" else _float_probe
    found, gradient = jax.jit(partial(probe, net))(*given)
    found = {name: value.tolist() for name, value in found.items()}
    if arithmetic == "exact":
        outside, largest = jax.jit(partial(exact.survey, net))(*given)
        found["saturated_layers"] = [i for i, is_out in enumerate(outside.tolist()) if is_out]
        found["largest_value"] = float(f"{largest.max():.4g}")
    wide = dataclasses.replace(net, config=dataclasses.replace(net.config, dtype="float32"))
    same, best = (
        jax.jit(partial(_plain_gradient, n, arithmetic == "exact"))(*given) for n in (net, wide)
    )
    return {
        **found,
        "gradient_errors": _errors(gradient, same),
        "gradient_errors_float32": _errors(gradient, best),
        "autodiff_errors_float32": _errors(same, best),
    }


def distances(config: BackboneConfig, params: Params, shape: tuple[int, int]) -> list[dict]:
    """Distance of the last state from the pre-trained function, adapters adding nothing."""
    adapter = init_stack(config, 1, config.layers, jax.random.key(0))
    hidden = random_hidden(config, params, shape)
    mask = jnp.ones(hidden.shape[:2], bool)
    plain = backbone.run_layers(config, params["layers"], hidden, mask).astype(jnp.float32)
    lines = []
    for name, coupling in COUPLINGS.items():
        adapters = dict.fromkeys(coupling.branches, adapter)
        signs = jnp.zeros((config.layers, shape[0], 1, 1)) if coupling.signed else None
        for scale in (0.5,) if coupling.signed else _DISTANCE_LAMBDAS:
            net = Network(config, coupling, scale, 1)
            run = jax.jit(partial(exact.run, net))
            streams = run(adapters, params["layers"], mask, signs, hidden)
            last = reversible.finish(coupling, "newest", streams).astype(jnp.float32)
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


def random_hidden(config: BackboneConfig, params: Params, shape: tuple[int, int]) -> Array:
    """Embeddings of random tokens, which are public: float32[B, T, D]."""
    ids = jax.random.randint(jax.random.key(4), shape, 1, config.vocab_size)
    batch = {"input_ids": ids, "token_type_ids": jnp.zeros(shape, jnp.int32)}
    return backbone.embed(config, params, batch).astype(jnp.float32)


def _cotangents(streams):
    """Of a smooth function of both last streams."""
    return jax.tree.map(jnp.cos, streams)


def exact_probe(net: Network, adapters, layers, mask, signs, hidden):
    """Forward, backward and gradient of the exact network: (what was found, gradient)."""
    start, outside = fixed_point.to_fixed(hidden)

    def step(streams, stacked):
        adapter, layer, sign = stacked
        out, bits, more = exact.forward(net, adapter, layer, mask, sign, streams)
        return out, (streams, bits, more)

    last, (inputs, bits, more) = jax.lax.scan(step, (start, start), (adapters, layers, signs))
    kept = exact.Residuals(adapters, layers, mask, signs, last, bits, outside + more.sum(0))
    floats = jax.tree.map(lambda x: fixed_point.to_float(x, hidden.dtype), last)
    gradient, _, rebuilt = exact.sweep_back(net, kept, _cotangents(floats))
    unit = 2.0**-fixed_point.FRACTION_BITS
    return _compare(inputs, rebuilt, unit) | {"saturated_values": kept.outside.sum()}, gradient


def _float_probe(net, adapters, layers, mask, signs, hidden):
    def step(streams, stacked):
        adapter, layer, sign = stacked
        return net.forward(adapter, layer, mask, sign, streams), streams

    def back(carry, stacked):
        (streams, cotangents), (adapter, layer, sign) = carry, stacked
        streams, cotangents, gradient = reversible.layer_backward(
            net, adapter, layer, mask, sign, streams, cotangents
        )
        return (streams, cotangents), (streams, gradient)

    last, inputs = jax.lax.scan(step, (hidden, hidden), (adapters, layers, signs))
    _, (rebuilt, gradient) = jax.lax.scan(
        back, (last, _cotangents(last)), (adapters, layers, signs), reverse=True
    )
    return _compare(inputs, rebuilt, 1.0) | {"saturated_values": jnp.zeros((), jnp.int32)}, gradient


def _compare(inputs, rebuilt, unit):
    pairs = list(zip(inputs, rebuilt, strict=True))
    errors = [jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max() for a, b in pairs]
    return {
        "mismatched_values": sum((a != b).sum() for a, b in pairs),
        "max_stream_error": jnp.stack(errors).max() * unit,
    }


def _plain_gradient(net, is_rounded, adapters, layers, mask, signs, hidden):
    """Plain autodiff of the same network; rounding to fixed point counts as the identity."""
    coupling = net.coupling
    unit = 2.0**-fixed_point.FRACTION_BITS

    def rounded(x, how):
        nearest = how(x / unit) * unit
        return x + jax.lax.stop_gradient(nearest - x) if is_rounded else x

    def step(streams, stacked):
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

    def loss(adapters):
        start = rounded(hidden, jnp.round)
        streams, _ = jax.lax.scan(step, (start, start), (adapters, layers, signs))
        return sum(jnp.sum(jnp.sin(x)) for x in streams)

    return jax.grad(loss)(adapters)


def _errors(got, wanted) -> list[float]:
    """Relative error of every layer's whole gradient."""

    def flat(tree):
        return jnp.concatenate(
            [x.reshape(x.shape[0], -1).astype(jnp.float32) for x in jax.tree.leaves(tree)], axis=1
        )

    got, wanted = flat(got), flat(wanted)
    errors = jnp.linalg.norm(got - wanted, axis=1) / jnp.linalg.norm(wanted, axis=1)
    return [float(f"{x:.3g}") for x in errors]
