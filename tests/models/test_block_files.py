"""Weights in blocks: what files give, every method that freezes them, and mistakes."""

from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from memarc.measure import inspect
from memarc.models import backbone, block_files, pretrained, tensor_files
from memarc.models.build import build
from memarc.models.families import known
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig
from memarc.models.methods import METHODS
from memarc.ops import quantised
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum
from tests import gguf_files

gguf = pytest.importorskip("gguf")

CONFIG = make_config(
    "llama",
    vocab_size=61,
    width=64,
    layers=3,
    heads=4,
    kv_heads=2,
    feed_forward=96,
    max_positions=13,
    norm_epsilon=1e-3,
    activation="silu",
    dtype="float32",
)


@pytest.fixture(scope="module")
def params():
    """Random weights, as NumPy arrays."""
    drawn = jax.jit(partial(backbone.init, CONFIG))(jax.random.key(0))
    return jax.tree.map(lambda x: 3.0 * np.asarray(x), drawn)


@pytest.fixture(scope="module")
def folder(params, tmp_path_factory):
    """A Hugging Face folder of them."""
    path = tmp_path_factory.mktemp("weights")
    pretrained.save(path, CONFIG, params)
    return path


def kernels(params):
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            params["layers"], is_leaf=quantised.is_quantised
        )
        if path[-1].key == "kernel"
    }


def assert_equal(got, wanted):
    jax.tree.map(partial(np.testing.assert_array_equal, strict=True), got, wanted)


@pytest.mark.parametrize(("storage", "block"), [("int8", 16), ("int4", 32)])
def test_a_folder_is_rounded_layer_by_layer_and_nothing_else_is(folder, params, storage, block):
    _, found = pretrained.load(folder, dtype="bfloat16", storage_dtype=storage, storage_block=block)
    wanted = jax.jit(partial(quantised.in_blocks, dtype=storage, block=block))(params["layers"])
    got = kernels(found)
    assert got.keys() == kernels(params).keys() and len(got) == 7
    for name, kernel in kernels({"layers": wanted}).items():
        assert_equal(got[name], jax.tree.map(np.asarray, kernel))
    scale = found["layers"]["attention"]["norm"]["scale"]
    assert scale.dtype == found["embeddings"]["word"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("storage", ["int4", "gguf"])
def test_a_part_of_a_matrix_is_that_part_of_its_blocks(tmp_path, folder, params, storage):
    """As devices of a mesh read them: cut along outputs, along whole blocks, and within one."""
    weights = written(tmp_path, params, "Q4_1") if storage == "gguf" else folder
    table = {entry.path: entry for entry in known.name_table(CONFIG)}
    entry = table["layers", "feed_forward", "output", "kernel"]
    tensors = tensor_files.find(weights, CONFIG)

    def cut(shape, read):
        whole = read(tuple((0, size) for size in shape))
        for axis, at in ((2, 17), (1, shape[1] // 3), (1, shape[1] // 2), (0, 1)):
            ranges = [[(0, size), (0, size)] for size in shape]
            ranges[axis] = [(0, at), (at, shape[axis])]
            parts = [read(tuple(x[side] for x in ranges)) for side in (0, 1)]
            np.testing.assert_array_equal(np.concatenate(parts, axis), whole, strict=True)
        return whole

    found = block_files.read(tensors, CONFIG, entry, storage, 32, cut)
    assert found.codes.shape == (3, 96, 64) and found.scales.shape == (3, 3, 64)


# GGUF: a file's own blocks.


def written(folder, params, kind, **other):
    """A GGUF file of the weights; ``other`` are types of maps of the second layer."""
    pretrained.save(folder, CONFIG, params)
    tensors = {}
    for tensor in tensor_files.find(folder, CONFIG).values():
        with tensor.opened() as source:
            tensors[tensor.name] = source[:]
    path = folder / "model.gguf"
    metadata = {
        "llama.block_count": 3,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-3,
        "llama.context_length": 13,
        "llama.vocab_size": 61,
    }
    kinds = {f"blk.1.{part}.weight": x for part, x in other.items()}
    gguf_files.write(path, "llama", metadata, tensors, kind, kinds)
    return path


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
def test_blocks_of_a_file_are_taken_over_as_they_are(tmp_path, params, kind):
    """Their values are those that the package gguf widens, bit for bit."""
    path = written(tmp_path, params, kind)
    config, wanted = pretrained.load(path, dtype="float32", storage_dtype="float32")
    _, found = pretrained.load(path, dtype="float32", storage_dtype="gguf")
    for name, kernel in kernels(found).items():
        assert kernel.codes.dtype == {"Q8_0": "int8", "Q4_0": "int4", "Q4_1": "uint4"}[kind]
        assert (kernel.offsets is None) == (kind != "Q4_1") and kernel.scales.dtype == np.float16
        values = jax.jit(quantised.QuantisedKernel.values)(kernel)
        np.testing.assert_array_equal(values, kernels(wanted)[name], err_msg=name)
    assert_equal(found["embeddings"], wanted["embeddings"])
    assert config.feed_forward == 96


def test_types_that_are_not_taken_over_are_named(tmp_path, folder, params):
    load = partial(pretrained.load, dtype="float32", storage_dtype="gguf")
    with pytest.raises(ValueError, match=r"down_proj.* are Q4_0, Q8_0 in the file"):
        load(written(tmp_path, params, "Q4_0", ffn_down="Q8_0"))
    with pytest.raises(ValueError, match=r"are BF16 in the file; .* one of Q8_0, Q4_0, Q4_1"):
        load(written(tmp_path, params, "BF16"))
    with pytest.raises(ValueError, match=r"are F32 in the file; .* of a GGUF file"):
        load(folder)


def test_a_block_that_does_not_divide_is_named(folder):
    with pytest.raises(ValueError, match=r"storage_block is 40, .* of 64 inputs; give one of"):
        pretrained.load(folder, dtype="float32", storage_dtype="int8", storage_block=40)


# Methods around blocks.


def rows():
    rng = np.random.default_rng(0)
    mask = np.arange(7)[None] < np.array([[7], [4], [1]])
    ids = jnp.asarray(rng.integers(1, 61, (3, 7)), jnp.int32)
    return {"input_ids": ids, "attention_mask": jnp.asarray(mask, jnp.int32)}


FREEZING = [
    pytest.param(x, marks=[pytest.mark.slow] * (x in ("adapter", "head")))
    for x in sorted(METHODS.keys() - {"full"})
]
WITH_BIASES = make_config(
    "gpt2",
    vocab_size=61,
    width=64,
    layers=2,
    heads=4,
    feed_forward=96,
    max_positions=13,
    norm_epsilon=1e-3,
    activation="gelu_new",
    dtype="float32",
)
"""What "bitfit" trains is there, beside matrices in blocks."""


@pytest.mark.parametrize("method", FREEZING)
def test_a_method_around_blocks_is_the_one_around_their_values(params, fast_jit, method):
    config = WITH_BIASES if method == "bitfit" else CONFIG
    if method == "bitfit":
        params = fast_jit(partial(backbone.init, config))(jax.random.key(0))
    layers = jax.tree.map(
        jnp.asarray, jax.jit(partial(quantised.in_blocks, dtype="int4", block=32))(params["layers"])
    )
    held = {**jax.tree.map(jnp.asarray, params), "layers": layers}
    wide = {**held, "layers": fast_jit(quantised.widened)(layers)}
    options = {"side": {"reduction": 2}}.get(method, {})
    model = build(method, options, config, HeadConfig("last", 3))

    def loss(params, batch):
        trainable, frozen = model.init(jax.random.key(1), params)
        trainable = jax.tree.map(lambda x: x + 0.01, trainable)
        return model.loss(trainable, frozen, model.precompute(frozen, batch))

    batch = {**rows(), "labels": jnp.arange(3, dtype=jnp.int32)}
    run = fast_jit(loss)
    np.testing.assert_allclose(run(held, batch), run(wide, batch), rtol=2e-6)
    plain = run(jax.tree.map(jnp.asarray, params), batch)
    assert np.abs(plain - run(held, batch)).max() > 1e-4  # Four bits are not nothing.


@pytest.mark.parametrize("method", ["lora", pytest.param("reversible", marks=pytest.mark.slow)])
def test_engines_clip_alike_around_blocks(params, fast_jit, method):
    cut = fast_jit(partial(quantised.in_blocks, dtype="int8", block=32))
    held = {**params, "layers": cut(params["layers"])}
    model = build(method, {}, CONFIG, LanguageConfig())
    trainable, frozen = fast_jit(model.init)(jax.random.key(1), held)
    trainable = jax.tree.map(lambda x: x + 0.01, trainable)
    batch = {**rows(), "is_target": rows()["attention_mask"].at[:, 0].set(0)}

    def run(engine):
        total = partial(
            clipped_grad_sum,
            model.loss,
            clipping=Clipping(0.1, "abadi"),
            engine=engine,
            microbatch_size=3,
            precompute=model.precompute,
        )
        return fast_jit(total)(trainable, frozen, batch, np.zeros(3, bool))

    (wanted, aux), (got, other) = run("vmap"), run("ghost")
    np.testing.assert_allclose(other["norms"], aux["norms"], rtol=1e-4)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_reversal_around_blocks_brings_every_value_back(tmp_path, params):
    path = written(tmp_path, params, "Q4_0")
    config, held = pretrained.load(path, dtype="bfloat16", storage_dtype="gguf")
    found = inspect.reversal(inspect.Opened(path, config, held), rows())
    assert found["mismatched_values"] == found["saturated_values"] == 0


def test_a_method_that_trains_matrices_is_refused(params):
    held = {**params, "layers": quantised.in_blocks(params["layers"], "int8", 32)}
    model = build("full", {}, CONFIG, HeadConfig("last", 3))
    with pytest.raises(ValueError, match=r"trains layers/.*/kernel, which model\.storage_dtype"):
        model.init(jax.random.key(0), held)
