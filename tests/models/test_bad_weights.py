"""Weights that would give another function, or no numbers, are named when they are read."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from memarc.models import hub_config, pretrained
from memarc.models.families.known import FAMILIES
from tests.backbone_shapes import shapes_of


def load(folder):
    return pretrained.load(folder, dtype="float32", storage_dtype="float32")


@pytest.fixture
def saved(tmp_path):
    """Writes the example of a family, tensors random: (folder, params, tensors of its file)."""

    def write(name):
        content = {**FAMILIES[name].example, "model_type": name}
        (tmp_path / "config.json").write_text(json.dumps(content))
        config, rng = hub_config.read(tmp_path, "float32"), np.random.default_rng(1)
        shapes = shapes_of(config)
        params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
        if config.distance_buckets:
            params["layers"]["attention"]["distance"][:] = 0.5
        pretrained.save(tmp_path, config, params)
        return tmp_path, params, safetensors.numpy.load_file(tmp_path / "model.safetensors")

    return write


def rewrite(folder, tensors, **changes):
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    "name", [x for x in FAMILIES if FAMILIES[x].defaults.get("tie_word_embeddings")]
)
def test_a_tied_table_that_the_file_holds_otherwise_is_refused_and_can_be_used(saved, name):
    folder, params, tensors = saved(name)
    table = FAMILIES[name].table
    word = params["embeddings"]["word"]
    rewrite(folder, {**tensors, table: word})  # Twice the same: some files do that.
    jax.tree.map(np.testing.assert_array_equal, load(folder)[1], params)
    other = word.copy()
    other[-1, -1] += 1.0
    rewrite(folder, {**tensors, table: other})
    with pytest.raises(ValueError, match=rf"{table}' is another one.*tie_word_embeddings to false"):
        load(folder)
    rewrite(folder, {**tensors, table: other}, tie_word_embeddings=False)
    config, loaded = load(folder)
    assert config.has_table
    np.testing.assert_array_equal(loaded["final"]["table"], other)


def test_a_weight_that_float16_could_not_hold_is_named(saved):
    folder, _, tensors = saved("llama")
    halves = {name: x.astype(np.float16) for name, x in tensors.items()}
    rewrite(folder, halves)
    assert load(folder)[1]["embeddings"]["word"].dtype == np.float32
    name = "model.layers.1.mlp.down_proj.weight"
    with np.errstate(over="ignore"):
        halves[name] = (7e4 * np.abs(tensors[name]) + 7e4).astype(np.float16)
    rewrite(folder, halves)
    with pytest.raises(ValueError, match=rf"{name} holds infinite values.*float16.*bfloat16"):
        load(folder)


def test_eight_byte_floats_are_not_read(saved):
    folder, _, tensors = saved("gpt2")
    rewrite(folder, {name: x.astype(np.float64) for name, x in tensors.items()})
    with pytest.raises(ValueError, match=r"not F32.*: \['h\.0\.attn\.c_attn\.bias is F64"):
        load(folder)


@pytest.mark.parametrize(("name", "prefix"), [("gpt2", "transformer."), ("llama", "model.")])
def test_the_message_names_the_prefix_that_the_file_has(saved, name, prefix):
    folder, _, tensors = saved(name)
    assert all(key.startswith(prefix) for key in tensors if key != "lm_head.weight")
    tensors.popitem()
    rewrite(folder, tensors)
    with pytest.raises(ValueError, match=rf"names without the prefix '{prefix}'\):\n  missing"):
        load(folder)


def test_biases_that_layers_share_in_a_file_cannot_be_saved_once_they_differ(saved, tmp_path):
    folder, params, _ = saved("mpnet")
    params["layers"]["attention"]["distance"][1] += 1.0
    with pytest.raises(ValueError, match="distance differs between layers, but a file has one"):
        pretrained.save(folder, hub_config.read(folder, "float32"), params)


def test_an_unknown_family_names_those_that_are_known(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(ValueError, match=r"'mamba'; the supported ones are \('bert', .*'gpt_neox'"):
        load(tmp_path)
