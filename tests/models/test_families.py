"""Every family computes what transformers' torch model computes, from its own example config.

A family that is added to `memarc.models.families` is tested here by itself. Weights are drawn large
(standard deviation 0.3; scales of norms away from where they start), so that a swapped, transposed
or dropped weight is far outside the tolerance.
"""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from memarc.measure import reversibility as reversal
from memarc.models import backbone, hub_config, pretrained, tensor_files
from memarc.models.adapter import init_stack
from memarc.models.build import build
from memarc.models.coupled import Network
from memarc.models.couplings import COUPLINGS
from memarc.models.families.known import FAMILIES, name_table
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig
from memarc.models.methods import METHODS
from memarc.models.reversible import Reversible
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum
from tests import fast_compile
from tests.backbone_shapes import shapes_of
from tests.models import by_row, page

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4  # Relative, per state, float32 against float32.
LENGTHS = (11, 5, 1, 8)  # Real tokens per row: beyond all windows and the original contexts.


def torch_model(name):
    """A torch model of a family's example with random weights, in evaluation mode."""
    family = FAMILIES[name]
    special = {"bos_token_id": None, "eos_token_id": None}  # Their defaults are beyond the table.
    special |= {"pad_token_id": None} if family.parts.is_decoder else {}
    config = transformers.AutoConfig.for_model(name, **special | family.example)
    config._attn_implementation = "eager"
    model = getattr(transformers, family.model_class)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.normal_(0.0, 0.3, generator=generator)
            if weight.ndim == 1 and key.endswith("weight") and not family.parts.adds_one:
                weight.add_(1.0)
    return model


def rows(config):
    """Token ids, token types and a mask, int32[B, T], padded on the right."""
    rng = np.random.default_rng(0)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = (np.arange(shape[1])[None] < np.asarray(LENGTHS)[:, None]).astype(np.int32)
    ids = rng.integers(2, config.vocab_size, shape, np.int32)
    batch = {"input_ids": np.where(mask == 1, ids, config.pad_id or 0), "attention_mask": mask}
    if config.type_vocab:
        batch["token_type_ids"] = rng.integers(0, config.type_vocab, shape, np.int32)
    return batch


def torch_outputs(model, batch):
    """The hidden states before a last norm [.., B, T, D], the normed one, and logits or None."""
    tensors = {key: torch.tensor(value, dtype=torch.long) for key, value in batch.items()}
    with torch.no_grad():
        out = model(**tensors, output_hidden_states=True)
    states = [x.numpy() for x in out.hidden_states]
    return states, out.logits.numpy() if hasattr(out, "logits") else None


@functools.partial(jax.jit, static_argnums=0, compiler_options=fast_compile.options())
def every_output(config, params, batch):
    """The same of ours, with the last norm in place of the last state where there is one."""
    hidden, mask = backbone.embed(config, params, batch), backbone.token_mask(batch)
    layers = backbone.layers_of(config, params)
    last, states = backbone.read_states(config, layers, hidden, mask, lambda _, x: x, ())
    states = [hidden, *states]
    if config.parts.final_norm:
        last = states[-1] = backbone.norm_last(config, params, last)
    if not config.parts.is_decoder:
        return states, None
    return states, backbone.output_logits(config, params, last)


def outputs(config, params, batch):
    with jax.default_matmul_precision("highest"):
        return every_output(config, params, jax.tree.map(jnp.asarray, batch))


def error(ours, wanted, batch):
    """Norm of the difference over the norm, at real tokens."""
    real = batch["attention_mask"] == 1
    ours, wanted = np.asarray(ours, np.float64)[real], np.asarray(wanted, np.float64)[real]
    return np.linalg.norm(ours - wanted) / np.linalg.norm(wanted)


def load(folder):
    return pretrained.load(folder, dtype="float32", storage_dtype="float32")


@functools.lru_cache
def saved(name, base):
    """(torch model, folder) of a family; made once."""
    folder = base / name
    model = torch_model(name)
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(params=list(FAMILIES))
def pair(request, tmp_path_factory):
    return saved(request.param, tmp_path_factory.getbasetemp())


def largest_error(model, folder, **changes):
    """Over all states and the logits, with changes of the config."""
    config, params = load(folder)
    config = dataclasses.replace(config, **changes)
    batch = rows(config)
    wanted, wanted_logits = torch_outputs(model, batch)
    states, logits = outputs(config, params, batch)
    assert len(states) == len(wanted) == config.layers + 1
    assert (logits is None) == (wanted_logits is None)
    pairs = [*zip(states, wanted, strict=True), (logits, wanted_logits)]
    return max(error(*pair, batch) for pair in pairs if pair[0] is not None)


def test_states_and_logits_are_those_of_the_torch_model(pair):
    assert largest_error(*pair) <= TOLERANCE


@pytest.mark.parametrize("name", ["mpnet", "modernbert"])
def test_attention_in_blocks_is_that_of_whole_rows(name, tmp_path_factory):
    """Windows and biases of distances are cut with the queries."""
    model, folder = saved(name, tmp_path_factory.getbasetemp())
    assert largest_error(model, folder, attention_block=3) <= TOLERANCE


def test_the_example_and_what_transformers_writes_of_it_state_the_same(pair):
    """Keys of old files and of new ones, such as ``rope_scaling`` and ``rope_parameters``."""
    _, folder = pair
    config = load(folder)[0]
    old = {**FAMILIES[config.kind].example, "model_type": config.kind}
    assert hub_config.of_content(old, "float32", "the example") == config


def test_the_page_of_models_is_current():
    text = page.PAGE.read_text()
    errors = page.errors_of(text)
    assert errors.keys() == FAMILIES.keys() and max(errors.values()) <= TOLERANCE
    assert text == page.written(errors, TOLERANCE)


def test_what_is_saved_is_what_transformers_opens(pair, tmp_path):
    model, folder = pair
    config, params = load(folder)
    pretrained.save(tmp_path, config, params)
    again, report = type(model).from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    missing = {x for x in report["missing_keys"] if not x.startswith("pooler.")}
    assert not missing and not report["unexpected_keys"] and not report["mismatched_keys"]
    batch = rows(config)
    for ours, theirs in zip(
        torch_outputs(again.eval(), batch)[0], torch_outputs(model, batch)[0], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    config_again, params_again = load(tmp_path)
    assert config_again == config
    jax.tree.map(np.testing.assert_array_equal, params_again, params)


def test_any_range_of_a_leaf_is_that_of_the_whole_leaf(pair):
    """What devices of a mesh read; maps may lie side by side, and head by head."""
    _, folder = pair
    config, params = load(folder)
    tensors, rng = tensor_files.find(folder, config), np.random.default_rng(4)
    for entry in name_table(config):
        whole = functools.reduce(lambda tree, key: tree[key], entry.path, params)
        for _ in range(4):
            ranges = [tuple(sorted(rng.integers(0, size + 1, 2).tolist())) for size in whole.shape]
            found = tensor_files.read(tensors, config, entry, ranges, np.float32)
            wanted = whole[tuple(slice(*bounds) for bounds in ranges)]
            np.testing.assert_array_equal(found, wanted, strict=True)


def test_tensors_that_are_not_read_change_nothing(pair, tmp_path):
    """Every tensor that a file may hold beside the backbone's, of random values."""
    _, folder = pair
    config, params = load(folder)
    family, rng = FAMILIES[config.kind], np.random.default_rng(3)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    for pattern in family.ignored:
        name = pattern.format(layer=1).replace("*", "some.weight")
        tensors[family.prefix + name] = rng.normal(size=(3, 5)).astype(np.float32)
    pretrained.save(tmp_path, config, params)  # For its config.json.
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path)[1], params)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "this family turns whole"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers has 2 entries and layer_types 2"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 3}, "but use_sliding_window is false"),
        ("gemma2", {"layer_types": ["chunked"] * 3}, r"\['chunked'\]; the supported ones are"),
        ("gemma2", {"sliding_window": 0}, "sliding_window is 0; it must be at least 1"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "must be .*False"),
        ("gemma3_text", {"layer_types": ["full_attention", "sliding_attention"]}, "each of 3"),
        ("mistral", {"layer_types": ["full_attention"] * 3}, "must be .*None"),
        ("mpnet", {"relative_attention_num_buckets": 16}, "must be .*32"),
        ("bert", {"position_embedding_type": "relative_key"}, "must be .*'absolute'"),
        ("modernbert", {"hidden_activation": "swish"}, "activation is 'swish'; choose one of"),
    ],
)
def test_a_value_that_is_not_supported_is_named(name, changes, message):
    content = {**FAMILIES[name].example, "model_type": name, **changes}
    with pytest.raises(ValueError, match=message):
        hub_config.of_content(content, "float32", "this file")


# Of config.json files as they were published; what was changed since has not this form.
PUBLISHED = {
    "google/gemma-3-1b-it": """{
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "initializer_range": 0.02,
        "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
        "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": 512, "sliding_window_pattern": 6, "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0", "use_cache": true, "vocab_size": 262144}""",
    "google/gemma-2-9b-it": """{
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 16,
        "num_hidden_layers": 42, "num_key_value_heads": 8, "pad_token_id": 0,
        "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
        "sliding_window": 4096, "sliding_window_size": 4096, "torch_dtype": "bfloat16",
        "transformers_version": "4.42.0.dev0", "use_cache": true, "vocab_size": 256000}""",
    "microsoft/Phi-3-mini-4k-instruct": """{
        "_name_or_path": "Phi-3-mini-4k-instruct", "architectures": ["Phi3ForCausalLM"],
        "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
        "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu",
        "hidden_size": 3072, "initializer_range": 0.02, "intermediate_size": 8192,
        "max_position_embeddings": 4096, "model_type": "phi3", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0, "sliding_window": 2047,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.40.2",
        "use_cache": true, "attention_bias": false, "vocab_size": 32064}""",
    "Qwen/Qwen2-7B-Instruct": """{
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 3584,
        "initializer_range": 0.02, "intermediate_size": 18944, "max_position_embeddings": 32768,
        "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.41.2", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 152064}""",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_read_with_all_its_layers(name):
    config = hub_config.of_content(json.loads(PUBLISHED[name]), "bfloat16", name)
    reach = [config.layer_kinds[i].reach for i in config.kind_of_layer or [0] * config.layers]
    assert (
        reach
        == {
            "google/gemma-3-1b-it": ([511] * 5 + [None]) * 4 + [511] * 2,
            "google/gemma-2-9b-it": [4095, None] * 21,
            "microsoft/Phi-3-mini-4k-instruct": [2046] * 32,
            "Qwen/Qwen2-7B-Instruct": [None] * 28,
        }[name]
    )
    assert config.has_table == (config.kind in ("phi3", "qwen2"))
    assert hub_config.of_content(hub_config.content(config), "bfloat16", "again") == config


def test_an_unknown_key_and_a_quantised_model_are_refused_by_name(pair, tmp_path):
    _, folder = pair
    content = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({"attention_sinks": 4}, "'attention_sinks': 4.*not known to have"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config'.*not known to have"),
        ({"is_encoder_decoder": True}, "must be {'is_encoder_decoder': False}"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**content, **changes}))
        with pytest.raises(ValueError, match=message):
            hub_config.read(tmp_path, "float32")


# What each feature does is seen: another value is far off.

OFF = [
    ("mistral", {"layer_kinds": "unlimited"}),
    ("gemma2", {"kind_of_layer": ()}),
    ("gemma2", {"embedding_scale": 1.0}),
    ("gemma2", {"score_width": 0.0}),
    ("gemma2", {"score_cap": 0.0}),
    ("gemma2", {"logit_cap": 0.0}),
    ("modernbert", {"kind_of_layer": (0, 1, 1, 1)}),
    ("smollm3", {"kind_of_layer": (0, 0, 0)}),
]


@pytest.mark.parametrize(("name", "changes"), OFF)
def test_a_feature_that_is_left_out_is_told_from_the_right_one(name, changes, tmp_path_factory):
    model, folder = saved(name, tmp_path_factory.getbasetemp())
    config, params = load(folder)
    if "layer_kinds" in changes:
        kinds = (dataclasses.replace(config.layer_kinds[0], reach=None),)
        changes = {"layer_kinds": kinds}
    batch = rows(config)
    wanted = torch_outputs(model, batch)
    states, logits = outputs(dataclasses.replace(config, **changes), params, batch)
    found = [error(states[-1], wanted[0][-1], batch)]
    if logits is not None:
        found.append(error(logits, wanted[1], batch))
    assert max(found) > 0.01


# Tuning. By default pairs that other tests of methods do not stand for; the others are slow.

QUICK = (
    ("mpnet", "full"),
    ("modernbert", "head"),
    ("gemma3_text", "full"),
    ("qwen3", "adapter"),
)
PAIRS = [
    pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)
    for pair in itertools.product(FAMILIES, METHODS)
]
OPTIONS = {"lora": {"rank": 2}, "adapter": {"bottleneck": 5}, "reversible": {"bottleneck": 5}}


def example(name, **changes):
    """The example's config, with an output table of its own if it is a decoder."""
    family = FAMILIES[name]
    return family.config(family.example, has_table=family.parts.is_decoder, **changes)


def tuned(name, method, randomise):
    """(model, trainable drawn away from its start, frozen), in float64."""
    config = example(name, dtype="float64")
    options = dict(OPTIONS.get(method, {}))
    if method == "side":
        options["reduction"] = 3 if config.head_width % 4 else 2
    is_decoder = config.parts.is_decoder
    head = LanguageConfig(chunk=3, smoothing=0.1) if is_decoder else HeadConfig("first", 3)
    model = build(method, options, config, head)
    key = jax.random.key(0)
    trainable, frozen = jax.eval_shape(lambda: model.init(key, backbone.init(config, key)))
    frozen = randomise(frozen, seed=1)
    if "unit" in frozen["drawn"]:
        frozen["drawn"]["unit"] = np.full(config.width, 2.0**-16, np.float32)
    return model, randomise(trainable, scale=0.1), frozen


def labelled(config):
    batch = rows(config)
    if config.parts.is_decoder:
        return {**batch, "is_target": batch["attention_mask"]}
    types = np.zeros_like(batch["input_ids"])
    return {"token_type_ids": types, **batch, "labels": np.array([0, 2, 1, 2], np.int32)}


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_every_method_trains_and_engines_agree(float64, randomise, name, method):
    if method == "bitfit" and not example(name, dtype="float64").parts.has_biases:
        pytest.skip("There are no biases.")
    model, trainable, frozen = tuned(name, method, randomise)
    batch = labelled(model.method.config)

    @functools.partial(jax.jit, compiler_options=fast_compile.options())
    def summed(trainable, frozen, batch):
        return clipped_grad_sum(
            model.loss,
            trainable,
            frozen,
            batch,
            jnp.zeros(len(LENGTHS), bool),
            clipping=Clipping(0.05, "abadi"),
            engine="ghost",
            microbatch_size=len(LENGTHS),
            precompute=model.precompute,
        )

    given = trainable, frozen, batch
    oracle = functools.partial(by_row.gradients, model)
    found = jax.jit(oracle, compiler_options=fast_compile.options())(*given)
    wanted, wanted_aux = by_row.clipped(found, 0.05, np.zeros(len(LENGTHS), bool))
    got, aux = summed(*given)
    np.testing.assert_allclose(aux["norms"], wanted_aux["norms"], rtol=1e-9)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted))
    assert (aux["norms"][:2] > 0.05).all() and np.isfinite(largest)
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        assert np.abs(leaf).max() > 0.0, jax.tree_util.keystr(path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * largest), got, wanted
    )


GROUPED = ("mpnet", "modernbert")
"""Families with terms of attention of their own: biases of distances, windows."""


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=() if x in GROUPED else pytest.mark.slow) for x in FAMILIES]
)
def test_rows_of_one_example_have_the_states_of_rows_of_their_own(float64, randomise, name):
    config = example(name, dtype="float64")
    params = randomise(shapes_of(config), seed=1)
    batch = jax.tree.map(jnp.asarray, rows(config))
    encode = jax.jit(backbone.encode, static_argnums=0, compiler_options=fast_compile.options())
    wanted = encode(config, params, batch)
    grouped = jax.tree.map(lambda x: x.reshape(2, 2, -1), batch)
    found = encode(config, params, grouped).reshape(wanted.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


CACHED = ("mistral", "gemma3_text", "gpt_neox")
DECODERS = [
    pytest.param(name, marks=() if name in CACHED else pytest.mark.slow)
    for name in FAMILIES
    if FAMILIES[name].parts.is_decoder
]


@pytest.mark.parametrize("name", DECODERS)
def test_a_growing_cache_gives_the_states_of_whole_rows(float64, randomise, name):
    config = example(name, dtype="float64")
    params = randomise(shapes_of(config), seed=1)
    rng = np.random.default_rng(5)
    ids = rng.integers(0, config.vocab_size, (2, 11), np.int32)

    @functools.partial(jax.jit, compiler_options=fast_compile.options())
    def both(params, ids):
        layers = backbone.layers_of(config, params)

        def step(cache, place):
            start = jnp.full(2, place, jnp.int32)
            tokens = jax.lax.dynamic_slice_in_dim(ids, place, 1, axis=1)
            hidden = backbone.embed_more(config, params, tokens, start)
            state, cache = backbone.extend_plainly(config, layers, hidden, start, cache)
            return cache, state[:, 0]

        cache = jax.tree.map(
            lambda x: x + 7.0, backbone.empty_cache(config, config.layers, 2, 13)
        )  # Garbage in free slots.
        _, grown = jax.lax.scan(step, cache, jnp.arange(11, dtype=jnp.int32))
        batch = {"input_ids": ids, "attention_mask": jnp.ones_like(ids)}
        return jnp.moveaxis(grown, 0, 1), backbone.encode(config, params, batch)

    grown, whole = both(params, ids)
    np.testing.assert_allclose(grown, whole, rtol=1e-9, atol=1e-9)


# Exact reversal. By default of the family with most that other tests of it have not.

OFTEN = ("gemma3_text",)


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=() if x in OFTEN else pytest.mark.slow) for x in FAMILIES]
)
def test_exact_reversal_brings_every_value_back(randomise, name):
    config = example(name, dtype="float32")
    shapes = shapes_of(config)
    params = randomise(shapes, seed=1)
    net = Network(config, COUPLINGS["centred"], 2.0**-4, 1)
    shapes = jax.eval_shape(lambda: init_stack(config, 5, config.layers, jax.random.key(0)))
    adapters = {branch: randomise(shapes, scale=0.1) for branch in net.coupling.branches}
    hidden = np.random.default_rng(2).standard_normal((3, 7, config.width), np.float32)
    mask = np.arange(7) < np.array([[7], [5], [1]])
    units = np.full(config.width, 2.0**-16, np.float32)
    run = jax.jit(reversal.exact_probe, static_argnums=0, compiler_options=fast_compile.FULLY)
    layers = backbone.layers_of(config, params)
    found, gradient = run(net, adapters, layers, mask, None, units, hidden)
    assert {key: value.item() for key, value in found.items()} == {
        "mismatched_values": 0,
        "max_stream_error": 0.0,
        "saturated_values": 0,
    }
    assert all(np.abs(x).max() > 0.0 for x in jax.tree.leaves(gradient))


def test_halves_side_by_side_are_refused_by_a_coupling_that_takes_them_apart():
    with pytest.raises(ValueError, match=r"'meft3'.*gpt_neox.*side by side.*'centred'"):
        Reversible(example("gpt_neox", dtype="float32"), coupling="meft3")
