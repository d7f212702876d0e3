"""Where training starts, on small and on real weights, and every refused option."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer

from memarc.models import backbone, coupled, pretrained
from memarc.models.build import build
from memarc.models.couplings import COUPLINGS
from memarc.models.head import HeadConfig
from memarc.models.methods import METHODS, make_method
from memarc.models.reversible import Reversible
from memarc.models.side import Side

HEAD = HeadConfig("first", 2)


@pytest.fixture
def encoder(float64, sizes, weights, rows, fast_jit):
    """(config, parameters, rows, the pre-trained states) in float64."""
    cfg, batch = sizes(dtype="float64"), rows()
    params = weights(cfg)
    return cfg, params, batch, encode(fast_jit, cfg)(params, batch)


@functools.lru_cache
def encode(jit, cfg):
    return jit(lambda params, batch: backbone.encode(cfg, params, batch))


def distance(states, wanted, batch):
    """(relative error, mean cosine) at real tokens."""
    real = np.asarray(batch["attention_mask"]) == 1
    a, b = np.asarray(states, np.float64)[real], np.asarray(wanted, np.float64)[real]
    cosines = np.sum(a * b, -1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return np.linalg.norm(a - b) / np.linalg.norm(b), cosines.mean()


# The start.

EXACT = [
    *((name, {}) for name in METHODS if name != "reversible"),
    ("lora", {"targets": ("query", "output")}),
    ("side", {"downsample": "frozen", "reduction": 4, "layers": (1, 2)}),
]
"""A new method is expected here too; its default options must start from the backbone."""


def start_states(jit, method, params, batch):
    """The states that the head reads before any training."""

    def states(params):
        trainable, frozen = method.init(jax.random.key(0), params)
        return method.states(trainable, frozen, method.precompute(frozen, batch))

    return jit(states)(params)


@pytest.mark.parametrize(("method", "options"), EXACT)
def test_training_starts_from_the_pretrained_states(encoder, fast_jit, method, options):
    cfg, params, batch, wanted = encoder
    states = start_states(fast_jit, make_method(method, options, cfg), params, batch)
    np.testing.assert_allclose(states, wanted, rtol=0.0, atol=1e-12)


def test_a_replacing_side_network_starts_from_other_states(encoder, fast_jit):
    cfg, params, batch, wanted = encoder
    states = start_states(fast_jit, Side(cfg, merge="replace"), params, batch)
    assert distance(states, wanted, batch)[0] > 0.5


@functools.lru_cache
def ends(jit, cfg, coupling):
    """``(params, batch, lambda) -> the final streams with adapters at zero, by end``."""
    method = Reversible(cfg, coupling=coupling, scale=0.5, arithmetic="float")
    key = jax.random.key(0)
    shapes, _ = jax.eval_shape(lambda: method.init(key, backbone.init(cfg, key)))

    def start(params, batch, scale):
        adapters = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype=float), shapes)
        net = dataclasses.replace(method.network, scale=scale)
        hidden, mask = backbone.embed(cfg, params, batch), backbone.token_mask(batch)
        start = coupled.start(hidden)
        streams = coupled.run_plainly(net, adapters, params["layers"], mask, None, start)
        return {end: coupled.finish(net.coupling, end, streams) for end in ("newest", "mean")}

    return jit(start)


@pytest.mark.parametrize("coupling", [n for n, c in COUPLINGS.items() if not c.signed])
def test_the_newest_stream_tends_to_the_pretrained_states_in_proportion_to_lambda(
    encoder, fast_jit, coupling
):
    cfg, params, batch, wanted = encoder
    start = ends(fast_jit, cfg, coupling)
    at = [start(params, batch, np.float64(scale)) for scale in (1e-3, 1e-4)]
    newest = [distance(found["newest"], wanted, batch)[0] for found in at]
    assert newest[0] < 0.01
    np.testing.assert_allclose(newest[0] / newest[1], 10.0, rtol=0.02)
    # The other stream holds an earlier state: no lambda brings the mean near.
    assert min(distance(found["mean"], wanted, batch)[0] for found in at) > 0.3


SENTENCES = [
    "a gorgeous, witty, seductive movie.",
    "it's slow -- very, very slow.",
    "The committee will meet again on Tuesday to decide how the money is to be spent, and by whom.",
    "no.",
]


@pytest.mark.parametrize(
    ("coupling", "newest", "mean"),
    [("meft1", 0.95, 0.8), ("meft2", 0.95, 0.8), ("meft3", 0.93, 0.75)],
)
def test_on_real_weights_the_start_at_lambda_one_tenth_keeps_the_directions_of_the_states(
    minilm, fast_jit, coupling, newest, mean
):
    cfg, params = pretrained.load(minilm, dtype="float32", storage_dtype="float32")
    texts = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    texts.enable_padding()
    encoded = texts.encode_batch(SENTENCES)
    batch = {
        "input_ids": jnp.asarray([text.ids for text in encoded], jnp.int32),
        "token_type_ids": jnp.asarray([text.type_ids for text in encoded], jnp.int32),
        "attention_mask": jnp.asarray([text.attention_mask for text in encoded], jnp.int32),
    }
    wanted = encode(fast_jit, cfg)(params, batch)
    states = ends(fast_jit, cfg, coupling)(params, batch, np.float32(0.1))
    found = {end: distance(x, wanted, batch) for end, x in states.items()}
    for end, (error, cosine) in found.items():
        print(f"{coupling} {end}: relative error {error:.4f}, mean cosine {cosine:.4f}")
    assert found["newest"][1] > newest and found["mean"][1] > mean
    assert found["newest"][0] < found["mean"][0]


# Refused options.


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("magic", {}, r"Unknown method 'magic'; choose one of \['full', .*'reversible'\]"),
        ("lora", {"rang": 3}, r"'lora' has no option \['rang'\]; .*\['rank', .*'train'\]"),
        ("full", {"rank": 3}, r"'full' has no option \['rank'\]; its options are \[\]"),
        ("lora", {"rank": 0}, r"LoRA rank is 0; it must be at least 1"),
        ("lora", {"alpha": 0.0}, r"LoRA alpha is 0.0; it must be positive"),
        ("lora", {"targets": ("query", "pooler")}, r"LoRA targets \['pooler'\]; choose .*'value'"),
        ("lora", {"targets": ()}, r"LoRA targets are empty; choose from .*'query'"),
        ("adapter", {"bottleneck": 0}, r"bottleneck is 0; it must be at least 1"),
        ("side", {"start": "fisher"}, r"side start is 'fisher'; .*\('pruned', 'random'\)"),
        ("side", {"merge": "mul"}, r"side merge is 'mul'; .*\('add', 'replace'\)"),
        ("side", {"downsample": "no"}, r"side downsample is 'no'; .*\('trained', 'frozen'\)"),
        ("side", {"reduction": 3}, r"side reduction 3 must divide the head width 8 and .* 40"),
        ("side", {"reduction": 0}, r"side reduction 0 must divide"),
        ("side", {"reduction": -2}, r"side reduction -2 must divide"),
        ("side", {"layers": (2, 1)}, r"side layers \(2, 1\) must be increasing and within 0\.\.3"),
        ("side", {"layers": (1, 1)}, r"side layers \(1, 1\) must be increasing"),
        ("side", {"layers": (0, 4)}, r"side layers \(0, 4\) must be .* within 0\.\.3"),
        ("side", {"layers": (-1, 2)}, r"side layers \(-1, 2\) must be .* within 0\.\.3"),
        ("reversible", {"coupling": "meft4"}, r"coupling is 'meft4'; .*'centred', .*'meft3'"),
        ("reversible", {"end": "last"}, r"end is 'last'; choose 'newest' or 'mean'"),
        ("reversible", {"scale": 0.0}, r"scale \(lambda\) is 0.0; it must be in \(0, 1\]"),
        ("reversible", {"scale": 1.5}, r"scale \(lambda\) is 1.5"),
        ("reversible", {"scale": float("nan")}, r"scale \(lambda\) is nan"),
        ("reversible", {"bottleneck": -1}, r"bottleneck is -1; it must be at least 1"),
        ("reversible", {"layers": 5}, r"reversible layers is 5; the backbone has 4"),
        ("reversible", {"layers": -1}, r"reversible layers is -1; the backbone has 4"),
        ("reversible", {"anchor_every": 3}, r"anchor_every is 3; .* the 4 .* one of \[1, 2, 4\]"),
        ("reversible", {"anchor_every": 0}, r"anchor_every is 0; it must divide"),
        ("reversible", {"layers": 3, "anchor_every": 2}, r"the 3 reversible .* one of \[1, 3\]"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_with_its_value_and_the_choices(sizes, method, options, message):
    with pytest.raises(ValueError, match=message):
        build(method, options, sizes(), HEAD)
