"""Measures whether a reversible network comes back, and prints one JSON line.

    python -m experiments.reversibility --layers=24 --width=256 --dtype=bfloat16 --arithmetic=exact

All of it is measured inside one compiled program that also computes the gradient. With --weights
the layers are real ones, and the line also says how far each coupling starts from the pre-trained
function. Fields: mismatched_values, stream values that do not come back; max_stream_error, the
largest difference; gradient_errors, by layer, relative, against plain autodiff of the same coupled
network; gradient_errors_float32 and autodiff_errors_float32, the same of this network and of plain
autodiff against autodiff in float32; saturated_rows, rows that left the range.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags

from experiments import cli
from memarc.models import backbone, exact, pretrained, reversible
from memarc.models.adapter import init_stack
from memarc.models.config import DTYPES, BackboneConfig
from memarc.models.couplings import COUPLINGS
from memarc.models.reversible import Network, ReversibleOptions
from memarc.ops import fixed_point
from memarc.report import records

_LAYERS = flags.DEFINE_integer("layers", 24, "Layers of a random network.")
_WIDTH = flags.DEFINE_integer("width", 256, "Its width, a multiple of 64.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", DTYPES, "Compute dtype.")
_ARITHMETIC = flags.DEFINE_enum("arithmetic", "exact", ("exact", "float"), "Of the streams.")
_LAMBDA = flags.DEFINE_float("lambda", 0.0625, "Factor of the coupling.")
_COUPLING = flags.DEFINE_enum("coupling", "centred", list(COUPLINGS), "The coupling.")
_SEGMENT = flags.DEFINE_integer("segment", 2, "Layers of a segment; divides the layers.")
_ROWS = flags.DEFINE_integer("rows", 4, "Rows of the random input.")
_TOKENS = flags.DEFINE_integer("tokens", 32, "Tokens of a row.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Folder or hub name of real weights.")
_OUTPUT = flags.DEFINE_string("output", None, "File to append the line to.")

_DISTANCE_LAMBDAS = (0.0625, 0.125, 0.25, 0.5)
_ADAPTER_SCALE = 0.02


def main() -> int:
    """Prints the line."""
    options = ReversibleOptions(
        coupling=_COUPLING.value,
        scale=_LAMBDA.value,
        arithmetic=_ARITHMETIC.value,
        anchor_every=_SEGMENT.value,
    )
    config, params = _network()
    reversible.reversible(config, options)  # Checks that the segment divides the layers.
    net = Network(config, COUPLINGS[options.coupling], options.scale, options.anchor_every)
    line = {
        "layers": config.layers,
        "width": config.width,
        "dtype": config.dtype,
        "coupling": options.coupling,
        "arithmetic": options.arithmetic,
        "lambda": options.scale,
        "segment": options.anchor_every,
        "weights": _WEIGHTS.value or "random",
        **measure(net, params, options.arithmetic),
    }
    if _WEIGHTS.value:
        line["distances"] = distances(config, params)
    line |= {"device": records.device(), "versions": records.versions()}
    line["commit"] = records.commit(Path(__file__).parent)
    text = json.dumps(records.encode(line))
    print(text)
    if _OUTPUT.value:
        with open(_OUTPUT.value, "a", encoding="utf-8") as file:
            file.write(text + "\n")
    return 0


def measure(net: Network, params, arithmetic: str) -> dict:
    """Streams and gradients of one network on random input, with random adapters."""
    adapters = {
        name: init_stack(net.config, 16, net.config.layers, jax.random.key(seed))
        for seed, name in enumerate(("first", "second"))
    }
    leaves, tree = jax.tree.flatten(adapters)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    adapters = tree.unflatten(
        x + _ADAPTER_SCALE * jax.random.normal(key, x.shape)
        for x, key in zip(leaves, keys, strict=True)
    )
    hidden = _hidden(net.config, params)
    mask = jnp.ones(hidden.shape[:2], bool)
    given = (adapters, params["layers"], mask, hidden)
    probe = _exact_probe if arithmetic == "exact" else _float_probe
    found, gradient = jax.jit(partial(probe, net))(*given)
    wide = dataclasses.replace(net, config=dataclasses.replace(net.config, dtype="float32"))
    same, best = (
        jax.jit(partial(_plain_gradient, n, arithmetic == "exact"))(*given) for n in (net, wide)
    )
    return {
        **{name: value.item() for name, value in found.items()},
        "gradient_errors": _errors(gradient, same),
        "gradient_errors_float32": _errors(gradient, best),
        "autodiff_errors_float32": _errors(same, best),
    }


def distances(config: BackboneConfig, params) -> list[dict]:
    """Distance of the last state from the pre-trained function, adapters adding nothing."""
    adapters = {
        name: init_stack(config, 1, config.layers, jax.random.key(0))
        for name in ("first", "second")
    }
    hidden = _hidden(config, params)
    mask = jnp.ones(hidden.shape[:2], bool)
    plain = backbone.run_layers(config, params["layers"], hidden, mask).astype(jnp.float32)
    lines = []
    for name, coupling in COUPLINGS.items():
        for scale in _DISTANCE_LAMBDAS:
            net = Network(config, coupling, scale, 1)
            run = jax.jit(partial(exact.run, net))
            streams = run(adapters, params["layers"], mask, hidden)
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


def _network():
    if _WEIGHTS.value:
        return pretrained.load(_WEIGHTS.value, dtype=_DTYPE.value, storage_dtype="float32")
    if _WIDTH.value % 64 or _WIDTH.value < 64:
        raise ValueError(f"width is {_WIDTH.value}; give a multiple of 64.")
    config = BackboneConfig(
        kind="bert",
        vocab_size=97,
        width=_WIDTH.value,
        layers=_LAYERS.value,
        heads=_WIDTH.value // 64,
        feed_forward=4 * _WIDTH.value,
        max_positions=512,
        type_vocab=2,
        norm_epsilon=1e-12,
        activation="gelu",
        pad_id=0,
        dtype=_DTYPE.value,
    )
    return config, backbone.init(config, jax.random.key(3))


def _hidden(config, params):
    """Embeddings of random tokens, which are public: float32[B, T, D]."""
    shape = (_ROWS.value, _TOKENS.value)
    ids = jax.random.randint(jax.random.key(4), shape, 1, config.vocab_size)
    batch = {"input_ids": ids, "token_type_ids": jnp.zeros(shape, jnp.int32)}
    return backbone.embed(config, params, batch).astype(jnp.float32)


def _cotangents(streams):
    """Of a smooth function of both last streams."""
    return jax.tree.map(jnp.cos, streams)


def _exact_probe(net, adapters, layers, mask, hidden):
    start, is_bad = fixed_point.to_fixed(hidden)

    def step(streams, stacked):
        adapter, layer = stacked
        out, bits, is_worse = exact.forward(net, adapter, layer, mask, streams)
        return out, (streams, bits, is_worse)

    last, (inputs, bits, is_worse) = jax.lax.scan(step, (start, start), (adapters, layers))
    is_bad = is_bad | is_worse.any(0)
    kept = exact.Residuals(adapters, layers, mask, last, bits, is_bad)
    floats = jax.tree.map(lambda x: fixed_point.to_float(x, hidden.dtype), last)
    gradient, _, rebuilt = exact.sweep_back(net, kept, _cotangents(floats))
    unit = 2.0**-fixed_point.FRACTION_BITS
    return _compare(inputs, rebuilt, unit) | {"saturated_rows": is_bad.sum()}, gradient


def _float_probe(net, adapters, layers, mask, hidden):
    def step(streams, stacked):
        adapter, layer = stacked
        return reversible.layer_forward(net, adapter, layer, mask, streams), streams

    def back(carry, stacked):
        (streams, cotangents), (adapter, layer) = carry, stacked
        streams, cotangents, gradient = reversible.layer_backward(
            net, adapter, layer, mask, streams, cotangents
        )
        return (streams, cotangents), (streams, gradient)

    last, inputs = jax.lax.scan(step, (hidden, hidden), (adapters, layers))
    _, (rebuilt, gradient) = jax.lax.scan(
        back, (last, _cotangents(last)), (adapters, layers), reverse=True
    )
    return _compare(inputs, rebuilt, 1.0) | {"saturated_rows": jnp.zeros((), jnp.int32)}, gradient


def _compare(inputs, rebuilt, unit):
    pairs = list(zip(inputs, rebuilt, strict=True))
    errors = [jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max() for a, b in pairs]
    return {
        "mismatched_values": sum((a != b).sum() for a, b in pairs),
        "max_stream_error": jnp.stack(errors).max() * unit,
    }


def _plain_gradient(net, is_rounded, adapters, layers, mask, hidden):
    """Plain autodiff of the same network; rounding to fixed point counts as the identity."""
    (a, b), coupling = net.factors, net.coupling
    unit = 2.0**-fixed_point.FRACTION_BITS

    def rounded(x, how):
        nearest = how(x / unit) * unit
        return x + jax.lax.stop_gradient(nearest - x) if is_rounded else x

    def step(streams, stacked):
        (x1, x2), (adapter, layer) = streams, stacked
        centre = x2 if coupling.centred else jnp.zeros_like(x2)
        y1 = rounded(a * (x1 - centre), jnp.floor)
        y1 = y1 + rounded(net.branch("first", adapter, layer, x2, mask), jnp.round)
        y2 = rounded(b * x2, jnp.floor)
        y2 = y2 + rounded(net.branch("second", adapter, layer, y1, mask), jnp.round)
        return ((y2, y1) if coupling.swap else (y1, y2)), None

    def loss(adapters):
        start = rounded(hidden, jnp.round)
        streams, _ = jax.lax.scan(step, (start, start), (adapters, layers))
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


if __name__ == "__main__":
    cli.run(main)
