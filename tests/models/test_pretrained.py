"""Reading and writing Hugging Face folders: names, layout, dtypes, memory, and every error."""

import dataclasses
import json
import sys
import tracemalloc

import huggingface_hub
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from huggingface_hub.errors import LocalEntryNotFoundError

from memarc.models import hub_config, lora, pretrained, tensor_files
from memarc.models.families.known import make_config
from tests.backbone_shapes import shapes_of

SIZES = {
    "vocab_size": 13,
    "hidden_size": 6,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 7,
    "max_position_embeddings": 11,
    "type_vocab_size": 4,
    "layer_norm_eps": 1e-7,
    "hidden_act": "relu",
    "pad_token_id": 5,
    "model_type": "bert",
}

# Name in a file -> (its shape for SIZES, path in our tree), written out apart from the code.
ONCE = {
    "embeddings.word_embeddings.weight": ((13, 6), "embeddings/word"),
    "embeddings.position_embeddings.weight": ((11, 6), "embeddings/position"),
    "embeddings.token_type_embeddings.weight": ((4, 6), "embeddings/token_type"),
    "embeddings.LayerNorm.weight": ((6,), "embeddings/norm/scale"),
    "embeddings.LayerNorm.bias": ((6,), "embeddings/norm/bias"),
}
PER_LAYER = {
    "attention.self.query.weight": ((6, 6), "attention/query/kernel"),
    "attention.self.query.bias": ((6,), "attention/query/bias"),
    "attention.self.key.weight": ((6, 6), "attention/key/kernel"),
    "attention.self.key.bias": ((6,), "attention/key/bias"),
    "attention.self.value.weight": ((6, 6), "attention/value/kernel"),
    "attention.self.value.bias": ((6,), "attention/value/bias"),
    "attention.output.dense.weight": ((6, 6), "attention/output/kernel"),
    "attention.output.dense.bias": ((6,), "attention/output/bias"),
    "attention.output.LayerNorm.weight": ((6,), "attention/norm/scale"),
    "attention.output.LayerNorm.bias": ((6,), "attention/norm/bias"),
    "intermediate.dense.weight": ((7, 6), "feed_forward/intermediate/kernel"),
    "intermediate.dense.bias": ((7,), "feed_forward/intermediate/bias"),
    "output.dense.weight": ((6, 7), "feed_forward/output/kernel"),
    "output.dense.bias": ((6,), "feed_forward/output/bias"),
    "output.LayerNorm.weight": ((6,), "feed_forward/norm/scale"),
    "output.LayerNorm.bias": ((6,), "feed_forward/norm/bias"),
}


def tensors_of_a_file(dtype=np.float32):
    """Random tensors under the names of a file without a prefix."""
    rng = np.random.default_rng(0)
    shapes = {name: shape for name, (shape, _) in ONCE.items()}
    for layer in range(SIZES["num_hidden_layers"]):
        for name, (shape, _) in PER_LAYER.items():
            shapes[f"encoder.layer.{layer}.{name}"] = shape
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def write(folder, tensors, **changes):
    """Writes a folder with plain library calls; a change to None removes a key of the config."""
    folder.mkdir(exist_ok=True)
    config = {key: value for key, value in {**SIZES, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return folder


def load(folder, storage_dtype="float32"):
    return pretrained.load(folder, dtype="float32", storage_dtype=storage_dtype)


def random_params(config, dtype=np.float32):
    rng = np.random.default_rng(1)
    shapes = shapes_of(config)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(dtype), shapes)


def assert_bit_equal(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


CONFIG = make_config(
    "roberta",
    vocab_size=13,
    width=6,
    layers=3,
    heads=2,
    feed_forward=7,
    max_positions=11,
    type_vocab=4,
    norm_epsilon=1e-5,
    activation="gelu",
    pad_id=1,
    dtype="float32",
)


# Loading: names and layout.


def test_every_leaf_holds_its_own_tensor_stacked_over_layers_and_kernels_transposed(tmp_path):
    tensors = tensors_of_a_file()
    _, params = load(write(tmp_path, tensors))

    def leaf(path):
        node = params
        for key in path.split("/"):
            node = node[key]
        return node

    for name, (_, path) in ONCE.items():
        np.testing.assert_array_equal(leaf(path), tensors[name])
    for name, (_, path) in PER_LAYER.items():
        for layer in range(3):
            wanted = tensors[f"encoder.layer.{layer}.{name}"]
            wanted = wanted.T if path.endswith("kernel") else wanted
            np.testing.assert_array_equal(leaf(f"layers/{path}")[layer], wanted)


def test_the_tree_is_the_one_that_the_backbone_draws(tmp_path):
    config, params = load(write(tmp_path, tensors_of_a_file()))
    drawn = shapes_of(config)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, drawn)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_prefix_old_norm_names_heads_and_buffers_change_nothing(tmp_path, kind):
    tensors = tensors_of_a_file()
    _, plain = load(write(tmp_path / "plain", tensors, model_type=kind))
    renamed = {}
    for name, value in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        renamed[f"{kind}." + name.replace("LayerNorm.bias", "LayerNorm.beta")] = value
    other = np.ones((2, 3), np.float32)
    for name in ("pooler.dense.weight", "embeddings.position_ids"):
        renamed[f"{kind}.{name}"] = other
    for name in ("cls.predictions.bias", "lm_head.bias", "classifier.weight"):
        renamed[name] = other
    _, params = load(write(tmp_path / "renamed", renamed, model_type=kind))
    assert_bit_equal(params, plain)


@pytest.mark.parametrize("stored", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("storage_dtype", ["float32", "bfloat16"])
def test_each_source_dtype_is_cast_once_to_the_storage_dtype(tmp_path, stored, storage_dtype):
    tensors = tensors_of_a_file(stored)
    _, params = load(write(tmp_path, tensors), storage_dtype)
    wanted = tensors["encoder.layer.2.intermediate.dense.weight"].T.astype(storage_dtype)
    given = params["layers"]["feed_forward"]["intermediate"]["kernel"][2]
    assert given.dtype == wanted.dtype
    assert given.tobytes() == wanted.tobytes()
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {wanted.dtype}


def test_a_tensor_longer_than_one_block_arrives_whole(tmp_path, monkeypatch):
    tensors = tensors_of_a_file()
    _, whole = load(write(tmp_path, tensors))
    monkeypatch.setattr(tensor_files, "_BLOCK_BYTES", 60)  # Two rows of six, or one of seven.
    _, by_blocks = load(tmp_path)
    assert_bit_equal(by_blocks, whole)


# Loading: memory.


def peak_ratio(read):
    """Peak memory over the size of what is returned."""
    tracemalloc.start()
    try:
        tensors = read()
        return tracemalloc.get_traced_memory()[1] / sum(x.nbytes for x in jax.tree.leaves(tensors))
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("storage_dtype", ["float32", "bfloat16"])
def test_loading_never_holds_two_copies_of_the_weights(tmp_path, storage_dtype):
    # As in a real model, one table is about half of all weights: 4 MB of 8.7 MB.
    config = dataclasses.replace(CONFIG, vocab_size=8191, width=126, feed_forward=505, layers=6)
    pretrained.save(tmp_path, config, random_params(config))
    assert peak_ratio(lambda: load(tmp_path, storage_dtype)[1]) <= 1.3

    def careless():  # The measure must see a reader that holds a file's tensors, then casts.
        tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
        return jax.tree.map(lambda x: x.astype(storage_dtype), tensors)

    assert peak_ratio(careless) > 1.9


# Loading: the config.


def test_the_config_holds_each_size_of_the_file(tmp_path):
    write(tmp_path, {})
    assert hub_config.read(tmp_path, "bfloat16") == make_config(
        "bert",
        vocab_size=13,
        width=6,
        layers=3,
        heads=2,
        feed_forward=7,
        max_positions=11,
        type_vocab=4,
        norm_epsilon=1e-7,
        activation="relu",
        pad_id=5,
        dtype="bfloat16",
    )


@pytest.mark.parametrize(("kind", "pad_id"), [("bert", 0), ("roberta", 1)])
def test_an_old_config_gets_the_values_that_transformers_takes(tmp_path, kind, pad_id):
    write(tmp_path, {}, model_type=kind, pad_token_id=None, layer_norm_eps=None)
    config = hub_config.read(tmp_path, "float32")
    assert (config.pad_id, config.norm_epsilon) == (pad_id, 1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "t5"}, r"model_type is 't5'; the supported ones are \('bert', 'rob"),
        ({"model_type": None}, "model_type is None"),
        ({"position_embedding_type": "relative_key"}, "'relative_key'.*must be.*'absolute'"),
        ({"is_decoder": True}, r"\{'is_decoder': True\}, which is not supported"),
        ({"hidden_size": None, "vocab_size": None}, r"lacks \['vocab_size', 'hidden_size'\]"),
        ({"hidden_act": "tanh"}, "activation is 'tanh'; choose one of"),
    ],
)
def test_a_config_that_is_not_supported_says_what_is(tmp_path, changes, message):
    write(tmp_path, tensors_of_a_file(), **changes)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[1, 2]"])
def test_a_config_that_cannot_be_read_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json (cannot be read|holds a list)"):
        hub_config.read(tmp_path, "float32")


def test_an_unknown_storage_dtype_lists_the_choices(tmp_path):
    with pytest.raises(ValueError, match=r"'float16'; choose one of .*'bfloat16', 'int8'"):
        load(tmp_path, "float16")


# Loading: files that do not fit.


def test_missing_unknown_and_wrong_tensors_are_all_listed_in_one_error(tmp_path):
    tensors = tensors_of_a_file()
    del tensors["encoder.layer.1.output.dense.bias"]
    del tensors["embeddings.LayerNorm.weight"]
    tensors["encoder.layer.3.output.dense.bias"] = np.zeros(6, np.float32)
    tensors["encoder.rel_pos.weight"] = np.zeros(6, np.float32)
    # The transposed shape is just as wrong as any other.
    tensors["encoder.layer.0.output.dense.weight"] = np.zeros((7, 6), np.float32)
    tensors["embeddings.LayerNorm.bias"] = np.zeros(6, np.int32)
    with pytest.raises(ValueError) as caught:
        load(write(tmp_path, tensors))
    missing, unknown, wrong = str(caught.value).splitlines()[1:]
    assert missing == (
        "  missing: ['embeddings.LayerNorm.weight', 'encoder.layer.1.output.dense.bias']"
    )
    assert unknown == ("  unknown: ['encoder.layer.3.output.dense.bias', 'encoder.rel_pos.weight']")
    assert "embeddings.LayerNorm.bias is I32[6], not [6]" in wrong
    assert "encoder.layer.0.output.dense.weight is F32[7, 6], not [6, 7]" in wrong


def test_the_prefix_of_the_other_kind_is_not_dropped(tmp_path):
    tensors = {f"roberta.{name}": value for name, value in tensors_of_a_file().items()}
    with pytest.raises(ValueError, match=r"missing: .*\n  unknown: \['roberta\.embeddings"):
        load(write(tmp_path, tensors))


def test_a_tensor_under_two_names_is_refused(tmp_path):
    tensors = tensors_of_a_file()
    tensors["bert.embeddings.LayerNorm.gamma"] = np.ones(6, np.float32)
    with pytest.raises(ValueError, match=r"holds 'embeddings\.LayerNorm\.weight' more than once"):
        load(write(tmp_path, tensors))


def test_a_folder_without_safetensors_says_how_to_convert(tmp_path):
    write(tmp_path, tensors_of_a_file())
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds neither .*save_pretrained"):
        load(tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    path = write(tmp_path, tensors_of_a_file()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read \(.*fetch it again"):
        load(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    pretrained.save(tmp_path, CONFIG, random_params(CONFIG), max_shard_bytes=2000)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"\['model-00002-of-00003.safetensors'\] are missing"):
        load(tmp_path)


# Finding.


def test_a_hub_name_fetches_the_config_and_the_weights_alone(tmp_path, monkeypatch):
    write(tmp_path / "cache", tensors_of_a_file())
    asked = []

    def fetch(name, *, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    config, _ = load("someone/small-bert")
    assert config.width == 6
    assert asked == [("someone/small-bert", ["config.json", "model*.safetensors*"])]


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("offline"), OSError("offline")])
def test_a_name_that_the_hub_does_not_give_says_where_it_looked_and_what_to_run(
    tmp_path, monkeypatch, error
):
    def fetch(name, *, allow_patterns):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        load("someone/small-bert")
    for part in ("'someone/small-bert'", str(tmp_path), "cache and hub", "offline"):
        assert part in str(caught.value)
    assert str(caught.value).endswith(
        "run: hf download someone/small-bert --include 'config.json' "
        "--include 'model*.safetensors*'"
    )


def test_without_the_hub_client_folders_load_and_names_do_not(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    load(write(tmp_path, tensors_of_a_file()))
    with pytest.raises(ValueError, match=r"ModuleNotFoundError.*hf download small-bert"):
        load("small-bert")


@pytest.mark.parametrize("name", ["/no/such/folder", "./folder", "a/b/c", ""])
def test_a_path_that_is_no_folder_is_not_asked_of_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name == "":
        name = str(write(tmp_path, {}) / "config.json")  # A file, not a folder.
    with pytest.raises(ValueError, match="it is not a folder"):
        load(name)


# Saving.


@pytest.mark.parametrize("max_shard_bytes", [None, 2000, 1])
@pytest.mark.parametrize("storage_dtype", ["float32", "bfloat16"])
def test_what_is_saved_loads_bit_equal(tmp_path, storage_dtype, max_shard_bytes):
    params = random_params(CONFIG, pretrained.STORAGE_DTYPES[storage_dtype])
    pretrained.save(tmp_path, CONFIG, params, max_shard_bytes=max_shard_bytes)
    config, loaded = load(tmp_path, storage_dtype)
    assert config == CONFIG
    assert_bit_equal(loaded, params)


def test_device_arrays_are_saved_like_host_arrays(tmp_path):
    params = random_params(CONFIG)
    pretrained.save(tmp_path, CONFIG, jax.tree.map(jax.numpy.asarray, params))
    assert_bit_equal(load(tmp_path)[1], params)


def test_no_shard_is_larger_than_the_bound_and_the_index_names_every_tensor(tmp_path):
    params = random_params(CONFIG)
    pretrained.save(tmp_path, CONFIG, params, max_shard_bytes=2000)
    places = {}
    for path in tmp_path.glob("*.safetensors"):
        tensors = safetensors.numpy.load_file(path)
        assert 0 < sum(x.nbytes for x in tensors.values()) <= 2000
        places.update(dict.fromkeys(tensors, path.name))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == places
    assert places.keys() == tensors_of_a_file().keys()
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in jax.tree.leaves(params))


def test_a_later_save_leaves_no_file_of_an_earlier_one(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    for bound, count in ((1, 3 * 16 + 5), (2000, 3), (None, 1), (2000, 3)):
        params = random_params(CONFIG)
        params["embeddings"]["word"][0, 0] = count
        pretrained.save(tmp_path, CONFIG, params, max_shard_bytes=bound)
        assert len(list(tmp_path.glob("*.safetensors"))) == count
        assert (tmp_path / "model.safetensors.index.json").exists() == (count > 1)
        assert_bit_equal(load(tmp_path)[1], params)
    assert (tmp_path / "tokenizer.json").exists()


def test_a_write_that_fails_leaves_the_earlier_file_whole(tmp_path, monkeypatch):
    params = random_params(CONFIG)
    pretrained.save(tmp_path, CONFIG, params)
    files = {path.name for path in tmp_path.iterdir()}

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.numpy, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        pretrained.save(tmp_path, CONFIG, jax.tree.map(np.zeros_like, params))
    assert {path.name for path in tmp_path.iterdir()} == files
    assert_bit_equal(load(tmp_path)[1], params)


def test_a_tree_of_another_config_is_refused_leaf_by_leaf(tmp_path):
    params = random_params(CONFIG)
    del params["embeddings"]["word"]
    params["embeddings"]["extra"] = np.zeros(2, np.float32)
    query = params["layers"]["attention"]["query"]
    query["bias"] = query["bias"][:2]
    with pytest.raises(ValueError) as caught:
        pretrained.save(tmp_path / "new", CONFIG, params)
    for part in (
        "embeddings/word is absent, wanted (13, 6)",
        "embeddings/extra is (2,), wanted nothing",
        "layers/attention/query/bias is (2, 6), wanted (3, 6)",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_structured_kernel_is_refused(tmp_path):
    params = random_params(CONFIG)
    query = params["layers"]["attention"]["query"]
    query["kernel"] = lora.LowRankKernel(query["kernel"], query["kernel"], query["kernel"], 1.0)
    with pytest.raises(ValueError, match="query/kernel is LowRankKernel, wanted"):
        pretrained.save(tmp_path, CONFIG, params)


def test_a_shard_bound_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_shard_bytes is 0"):
        pretrained.save(tmp_path, CONFIG, random_params(CONFIG), max_shard_bytes=0)
