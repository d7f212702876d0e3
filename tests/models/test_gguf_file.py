"""GGUF files give what the Hugging Face folder of the same model does, and mistakes have names."""

import dataclasses
import sys
from functools import partial

import gguf
import jax
import numpy as np
import pytest

from memarc import gguf_header
from memarc.models import gguf_config, gguf_file, hub_config, pretrained
from tests import gguf_files
from tests.models.test_decoder_parity import GPT2, LLAMA, torch_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
theirs = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
rotary = pytest.importorskip("transformers.modeling_rope_utils")

SIZES = dict(
    vocab_size=61,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    intermediate_size=37,
    max_position_embeddings=13,
    rms_norm_eps=1e-3,
)
WIDE = SIZES | {"head_dim": 8}
GEMMA = WIDE | {"sliding_window": 5, "query_pre_attn_scalar": 8, "num_hidden_layers": 7}
CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
CASES = {  # Architecture of a file -> what config.json says that differs from the family's usual.
    "llama": WIDE | {"attention_bias": True, "mlp_bias": True, "rope_theta": 30.0},
    "smollm3": SIZES | {"num_hidden_layers": 5, "rope_theta": 30.0},
    "qwen2": SIZES | {"tie_word_embeddings": False},
    "qwen3": WIDE | {"attention_bias": True},
    "olmo2": SIZES | {"rope_parameters": {"rope_type": "linear", "factor": 3.0}},
    "phi3": SIZES | {"hidden_size": 48, "sliding_window": 4, "partial_rotary_factor": 0.5},
    "gemma": WIDE,
    "gemma2": GEMMA | CAPS,
    "gemma3": GEMMA | {"rope_theta": 500.0},
    "gpt2": GPT2,
}


def random_model(architecture):
    """A torch model of a case, its weights drawn so that a wrong one shows."""
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    kind = gguf_config.ARCHITECTURES[architecture].model_type
    config = transformers.AutoConfig.for_model(kind, **special | CASES[architecture])
    model = transformers.AutoModelForCausalLM.from_config(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3)
    return model


def metadata(architecture, sizes):
    """What a file says of sizes."""
    keys = {word: key for key, word in gguf_config.ARCHITECTURES[architecture].keys.items()}
    given = {keys[word]: x for word, x in sizes.items() if word in keys}
    if "partial_rotary_factor" in sizes:
        given["rope.dimension_count"] = 4  # Half of a head.
    if "rope_parameters" in sizes:
        given |= {"rope.scaling.type": "linear", "rope.scaling.factor": 3.0}
    return {f"{architecture}.{key}": x for key, x in given.items()}


def state(model):
    """A torch model's tensors, each once."""
    found = {name: x.numpy() for name, x in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del found["lm_head.weight"]
    return found


def written(path, architecture, sizes, tensors, **more):
    gguf_files.write(path, architecture, metadata(architecture, sizes) | more, tensors)
    return gguf_header.read(path)


def whole(tensor):
    """All values of a tensor."""
    with tensor.opened() as source:
        slices = tuple(slice(0, size) for size in tensor.shape)
        return source[slices if len(slices) > 1 else slices[0]]


@pytest.mark.parametrize("architecture", gguf_config.READ_BY_TRANSFORMERS)
def test_a_file_is_read_as_transformers_reads_it(tmp_path, architecture):
    model = random_model(architecture)
    header = written(tmp_path / "model.gguf", architecture, CASES[architecture], state(model))
    oracle = theirs.load_gguf_checkpoint(header.file, return_tensors=True, model_to_load=model)
    found, wanted = gguf_file.find(header, state(model)), oracle["tensors"]
    assert found.keys() == state(model).keys() <= wanted.keys()
    for name, tensor in found.items():
        np.testing.assert_array_equal(whole(tensor), wanted[name], strict=True, err_msg=name)
    content = gguf_config.content(header)
    alike = content.keys() & oracle["config"].keys()
    assert len(alike) >= 6
    for key in alike:
        wanted = oracle["config"][key]  # Floats are the file's float32.
        given = np.float32(content[key]) if isinstance(wanted, float) else content[key]
        assert given == wanted, key
    own = model.config.to_dict()  # What a file leaves out is as the family has it.
    for key in content.keys() & own.keys():
        assert content[key] == own[key], key


@pytest.mark.parametrize("kind", gguf_file.TYPES)
def test_any_range_of_every_type_is_as_the_package_widens_it(tmp_path, kind):
    """Of a matrix as it is, and of queries, whose rows are interleaved in the file."""
    rng = np.random.default_rng(1)
    sizes = SIZES | {"hidden_size": 512, "num_hidden_layers": 1}
    names = [f"model.layers.0.{name}.weight" for name in ("self_attn.q_proj", "mlp.down_proj")]
    values = {name: rng.standard_normal((24, 512), np.float32) for name in names}
    values["model.embed_tokens.weight"] = values[names[0]]
    path = tmp_path / "model.gguf"
    gguf_files.write(path, "llama", metadata("llama", sizes), values, kind)
    found = gguf_file.find(gguf_header.read(path), names)
    number = gguf.GGMLQuantizationType[kind]
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name in names:
        assert (found[name].dtype, found[name].shape) == (kind, (24, 512))
        given = stored["blk.0.attn_q.weight" if "q_proj" in name else "blk.0.ffn_down.weight"]
        wanted = gguf.dequantize(given.data, number)
        if "q_proj" in name:  # 24 rows are 6 heads of 4: rows 0, 2, 1, 3 of each.
            wanted = wanted.reshape(6, 4, 512)[:, [0, 2, 1, 3]].reshape(24, 512)
        assert np.isfinite(wanted).all() and len(np.unique(wanted)) > 100
        if not kind.endswith("_K"):  # The package quantised what was given: nothing is lost.
            assert np.abs(wanted - values[name]).max() < {"F": 0.01, "B": 0.03}.get(kind[0], 0.6)
        for _ in range(5):
            (top, bottom), (left, right) = np.sort(rng.integers(0, (25, 513), (2, 2)), 0).T
            part = found[name][top:bottom, left:right]
            np.testing.assert_array_equal(part, wanted[top:bottom, left:right], strict=True)


@pytest.mark.parametrize("architecture", CASES)
def test_a_file_gives_the_leaves_and_the_config_of_the_folder(tmp_path, architecture):
    """Whose logits are those of the torch model (`test_families`)."""
    model = random_model(architecture)
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.gguf"
    written(path, architecture, CASES[architecture], state(model))
    folder = pretrained.load(tmp_path, dtype="float32", storage_dtype="float32")
    file = pretrained.load(str(path), dtype="float32", storage_dtype="float32")
    assert file[0] == folder[0]
    # Gemma's files add 1 to the scales of norms, which rounds them.
    equal = partial(np.testing.assert_allclose, rtol=0, atol=2.5e-7)
    jax.tree.map(equal, file[1], folder[1])


TABLE = {"token_embd.weight": np.zeros((61, 24), np.float32)}


def rotary_factors(factor):
    """What a converter writes of LLaMA 3's positions, from transformers' own wavelengths."""
    config = transformers.LlamaConfig(
        **SIZES | {"head_dim": 16, "max_position_embeddings": 131072},
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    )
    slow, _ = rotary.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    return (500000.0 ** (-np.arange(0, 16, 2) / 16) / slow.numpy()).astype(np.float32)


def with_factors(path, factors):
    sizes = SIZES | {"head_dim": 16, "rope_theta": 500000.0}
    tensors = TABLE | {"rope_freqs.weight": factors}
    gguf_files.write_stored(path, "llama", metadata("llama", sizes), tensors)
    return gguf_header.read(path)


def test_positions_of_llama_3_are_told_by_their_factors(tmp_path):
    factors = rotary_factors(32.0)
    assert ((factors > 1.1) & (factors < 31)).any()  # Between the ends, too.
    header = with_factors(tmp_path / "model.gguf", factors)
    assert gguf_config.content(header)["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert gguf_file.find(header, []).keys() == {"token_embd.weight"}
    factors[-3] += 0.1
    with pytest.raises(ValueError, match="factors that are not LLaMA 3's"):
        gguf_config.content(with_factors(tmp_path / "model.gguf", factors))


# Mistakes.


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("mamba", {}, "the architecture 'mamba'; the supported ones are .*'llama'"),
        ("llama", {"embedding_length": None}, r"lacks \['hidden_size'\]"),
        ("llama", {"expert_count": 8}, "has {'expert_count': 8}, which a llama .* not known to"),
        ("llama", {"attention.sliding_window": 5}, "has {'attention.sliding_window': 5}"),
        ("qwen2", {"attention.key_length": 5}, "has {'attention.key_length': 5}"),
        ("llama", {"attention.head_count": [6, 2]}, "must be numbers: {'num_attention_heads': "),
        ("llama", {"rope.scaling.type": "yarn"}, "rotary positions by 'yarn'"),
    ],
)
def test_a_model_that_is_not_supported_says_what_is_wrong(tmp_path, architecture, changes, message):
    given = metadata("llama", SIZES) | {f"llama.{key}": x for key, x in changes.items()}
    given = {key.replace("llama", architecture): x for key, x in given.items() if x is not None}
    path = tmp_path / "model.gguf"
    gguf_files.write_stored(path, architecture, given, TABLE)
    with pytest.raises(ValueError, match=message):
        pretrained.load(path, dtype="float32", storage_dtype="float32")


def test_a_damaged_file_is_named_before_a_tensor_is_read(tmp_path):
    path, model = tmp_path / "model.gguf", torch_model("llama", LLAMA)
    written(path, "llama", LLAMA, state(model))
    content = path.read_bytes()
    header = gguf_header.read(path)
    first = min(stored.offset for stored in header.tensors.values())
    for length, message in (
        (len(content) - 40, "ends within the tensor .*: it has .* bytes of at least"),
        (first // 2, "is damaged, or ends within its header"),
        (0, "cannot be read .*empty"),
    ):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=message):
            pretrained.load(path, dtype="float32", storage_dtype="float32")
    path.unlink()
    with pytest.raises(ValueError, match="No weights at"):
        pretrained.load(path, dtype="float32", storage_dtype="float32")


@pytest.mark.parametrize(("number", "name"), [(20, "IQ4_NL"), (99, "type 99")])
def test_a_type_that_is_not_read_is_named(tmp_path, number, name):
    header = written(
        tmp_path / "model.gguf", "llama", SIZES, {"lm_head.weight": np.zeros((61, 24))}
    )
    stored = dataclasses.replace(header.tensors["output.weight"], type=number)
    header = dataclasses.replace(header, tensors={"output.weight": stored})
    with pytest.raises(
        ValueError, match=f"holds 1 tensors .* output.weight of {name}; give .*Q4_1"
    ):
        gguf_file.find(header, [])


def test_tensors_that_are_missing_or_unknown_are_listed(tmp_path):
    tensors = state(torch_model("llama", LLAMA))
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.layers.2.self_attn.q_proj.bias"] = np.zeros(24, np.float32)
    path = written(tmp_path / "model.gguf", "llama", LLAMA, tensors).file
    message = r"(?s)missing: \['layers.1.mlp.up_proj.weight'\].*unknown: \['blk.2.attn_q.bias'\]"
    with pytest.raises(ValueError, match=message):
        pretrained.load(path, dtype="float32", storage_dtype="float32")


def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch):
    header = written(tmp_path / "model.gguf", "llama", SIZES, {})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"pip install 'memarc\[gguf\]'"):
        gguf_file.find(header, [])


# The real file.


def test_smollm2_is_read(smollm2):
    header = gguf_header.read(smollm2)
    config = hub_config.read(smollm2, "float32")
    assert (config.kind, config.layers, config.width, config.kv_heads) == ("llama", 30, 576, 3)
    name = "model.layers.29.mlp.down_proj.weight"
    tensor = gguf_file.find(header, [name])[name]
    assert (tensor.dtype, tensor.shape) == ("Q4_1", (576, 1536))
    data = np.fromfile(smollm2, np.uint8, 576 * 48 * 20, offset=tensor.stored.offset)
    wanted = gguf.dequantize(data.reshape(576, 960), gguf.GGMLQuantizationType.Q4_1)
    np.testing.assert_array_equal(tensor[100:103, 50:90], wanted[100:103, 50:90])
