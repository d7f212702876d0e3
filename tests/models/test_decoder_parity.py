"""Decoders compute what transformers' torch models compute, logits and states, and so do files.

Weights are drawn large (standard deviation 0.3; norms away from 1 and 0), so that a swapped,
transposed or dropped weight is far outside the tolerance.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from memarc.models import hub_config, pretrained
from memarc.models.build import build
from memarc.models.language import LanguageConfig
from tests import fast_compile
from tests.models.states import every_state

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-5  # Relative, float32 against float32.
LENGTHS = (7, 5, 1, 6, 3)  # Real tokens per row; T = 7.

GPT2 = dict(
    vocab_size=61,
    n_embd=24,
    n_layer=3,
    n_head=3,
    n_inner=37,
    n_positions=13,
    layer_norm_epsilon=1e-3,
    bos_token_id=None,
    eos_token_id=None,
)
LLAMA = dict(
    vocab_size=61,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    intermediate_size=37,
    max_position_embeddings=13,
    rms_norm_eps=1e-3,
    bos_token_id=None,
    eos_token_id=None,
)
CASES = {
    "gpt2": ("gpt2", GPT2),
    "gpt2 with 4 D within, relu": ("gpt2", GPT2 | {"n_inner": None, "activation_function": "relu"}),
    "gpt2 with a table of its own": ("gpt2", GPT2 | {"tie_word_embeddings": False}),
    "llama": ("llama", LLAMA),
    "llama tied": ("llama", LLAMA | {"tie_word_embeddings": True}),
    "llama, a key head each": ("llama", LLAMA | {"num_key_value_heads": None}),
    "llama, other wavelengths": (
        "llama",
        LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
    ),
}


def torch_model(kind, sizes):
    """A torch language model with random weights, in evaluation mode."""
    config_class, model_class = {
        "gpt2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    }[kind]
    model = model_class(config_class(**sizes, attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.3, generator=generator)
            if "norm" in name or ("ln_" in name and name.endswith("weight")):
                weight.add_(1.0)
    return model


def random_batch():
    rng = np.random.default_rng(0)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = (np.arange(shape[1])[None] < np.asarray(LENGTHS)[:, None]).astype(np.int32)
    return {"input_ids": rng.integers(0, 61, shape, np.int32), "attention_mask": mask}


def torch_outputs(model, batch):
    """All hidden states before the last norm, and the logits."""
    tensors = {key: torch.tensor(value, dtype=torch.long) for key, value in batch.items()}
    with torch.no_grad():
        out = model(**tensors, output_hidden_states=True)
    # transformers puts the normed state in place of the last one.
    return [x.numpy() for x in out.hidden_states[:-1]], out.logits.numpy()


@functools.lru_cache
def compiled(config):
    """``(params, batch) -> (all states, logits)``."""
    model = build("head", {}, config, LanguageConfig(4, 0.0))

    def run(params, batch):
        states = every_state(config, params, batch)
        flat = states[-1].reshape(-1, config.width)
        trainable, frozen = model.init(jax.random.key(0), params)
        logits = model.logits(trainable, frozen, flat)
        return states, logits.reshape(*states.shape[1:3], -1)

    return jax.jit(run, compiler_options=fast_compile.options())


def our_outputs(config, params, batch):
    with jax.default_matmul_precision("highest"):
        return compiled(config)(params, {key: jnp.asarray(value) for key, value in batch.items()})


def assert_close(ours, wanted, batch):
    real = batch["attention_mask"] == 1
    ours, wanted = np.asarray(ours, np.float64)[real], np.asarray(wanted, np.float64)[real]
    assert np.linalg.norm(ours - wanted) <= TOLERANCE * np.linalg.norm(wanted)


@pytest.fixture(scope="module", params=list(CASES))
def pair(request, tmp_path_factory):
    """(torch model, its folder)."""
    model = torch_model(*CASES[request.param])
    folder = tmp_path_factory.mktemp("decoder")
    model.save_pretrained(folder)
    return model, folder


def test_states_and_logits_are_those_of_the_torch_model(pair):
    model, folder = pair
    config, params = pretrained.load(folder, dtype="float32", storage_dtype="float32")
    batch = random_batch()
    states, logits = our_outputs(config, params, batch)
    wanted, wanted_logits = torch_outputs(model, batch)
    for ours, theirs in zip(states, wanted, strict=False):
        assert_close(ours, theirs, batch)
    assert_close(logits, wanted_logits, batch)


def test_later_tokens_and_padding_change_nothing_before_them(pair):
    _, folder = pair
    config, params = pretrained.load(folder, dtype="float32", storage_dtype="float32")
    batch = random_batch()
    _, logits = our_outputs(config, params, batch)
    changed = {**batch, "input_ids": batch["input_ids"].copy()}
    changed["input_ids"][:, 4:] = 7
    _, others = our_outputs(config, params, changed)
    np.testing.assert_array_equal(logits[:, :4], others[:, :4])
    assert not np.allclose(logits[0, 4:], others[0, 4:])


@pytest.mark.parametrize("max_shard_bytes", [None, 9000])
def test_a_saved_folder_is_what_transformers_reads(pair, tmp_path, max_shard_bytes):
    model, folder = pair
    config, params = pretrained.load(folder, dtype="float32", storage_dtype="float32")
    pretrained.save(tmp_path, config, params, max_shard_bytes=max_shard_bytes)
    assert hub_config.read(tmp_path, "float32") == config
    again = type(model).from_pretrained(tmp_path, attn_implementation="eager").eval()
    batch = random_batch()
    np.testing.assert_array_equal(torch_outputs(again, batch)[1], torch_outputs(model, batch)[1])
    _, back = pretrained.load(tmp_path, dtype="float32", storage_dtype="float32")
    jax.tree.map(np.testing.assert_array_equal, params, back)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "must be .*False"),
        ("gpt2", {"n_embd": None}, r"lacks \['n_embd'\]; add"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "'yarn' is not supported"),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "lack .*'factor', 'high_freq"),
        ("llama", {"rope_parameters": {"mrope_section": [1]}}, r"unknown keys \['mrope_section'\]"),
        ("llama", {"num_key_value_heads": 4}, "kv_heads is 4; it must divide heads 6"),
        ("llama", {"hidden_size": 18, "head_dim": 3}, "Head width 3 is odd"),
        ("llama", {"quantization_config": {"bits": 4}}, "not known to have"),
        ("llama", {"is_encoder_decoder": True}, "must be .*False"),
    ],
)
def test_a_decoder_that_is_not_supported_says_what_is(tmp_path, kind, changes, message):
    given = {"model_type": kind, "hidden_act": "silu"} if kind == "llama" else {"model_type": kind}
    given |= {"activation_function": "relu"} if kind == "gpt2" else {}
    content = {**given, **CASES[kind][1], **changes}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        hub_config.read(tmp_path, "float32")


def test_old_files_with_masks_angles_and_a_second_table_are_read(tmp_path):
    """Hub files of GPT-2 hold causal masks, of LLaMA angles; some hold the tied table twice."""
    for kind, extra in (
        ("gpt2", {"h.0.attn.bias": np.zeros((1, 1, 3, 3), np.float32)}),
        ("llama", {"model.layers.1.self_attn.rotary_emb.inv_freq": np.zeros(2, np.float32)}),
    ):
        sizes = CASES["llama tied" if kind == "llama" else "gpt2"][1]
        folder = tmp_path / kind
        torch_model(kind, sizes).save_pretrained(folder)
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
        config, params = pretrained.load(folder, dtype="float32", storage_dtype="float32")
        tensors |= extra | {"lm_head.weight": np.asarray(params["embeddings"]["word"])}
        safetensors.numpy.save_file(tensors, folder / "model.safetensors")
        again, back = pretrained.load(folder, dtype="float32", storage_dtype="float32")
        assert again == config
        jax.tree.map(np.testing.assert_array_equal, params, back)
