"""The backbone computes what transformers' torch models compute, state by state.

Weights are drawn large (standard deviation 0.3; norms away from 1 and 0), so that a swapped,
transposed or dropped weight is far outside the tolerance.
"""

import copy
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models import pretrained
from tests import fast_compile
from tests.models.states import every_state

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

quick = jax.jit(every_state, static_argnums=0, compiler_options=fast_compile.options())
well_compiled = jax.jit(every_state, static_argnums=0)

TOLERANCE = 1e-5  # Relative, per hidden state, float32 against float32; rounding gives 1e-6.
LENGTHS = (7, 5, 1, 6, 3)  # Real tokens per row; T = 7.
CLASSES = {
    "bert": (transformers.BertConfig, transformers.BertModel),
    "roberta": (transformers.RobertaConfig, transformers.RobertaModel),
}


def torch_model(kind, activation="gelu", head=None):
    """A torch encoder of odd sizes with random weights, in evaluation mode."""
    config_class, model_class = CLASSES[kind]
    config = config_class(
        vocab_size=61,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=37,
        max_position_embeddings=13,
        type_vocab_size=5,
        hidden_act=activation,
        layer_norm_eps=1e-3,  # Large enough for another value to show.
        pad_token_id={"bert": 0, "roberta": 1}[kind],
        attn_implementation="eager",
    )
    model = (head or model_class)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.3, generator=generator)
            if name.endswith("LayerNorm.weight"):
                weight.add_(1.0)
    return model


def random_batch(kind, vocab_size=61, type_vocab=5, lengths=LENGTHS):
    """Token ids, token types and a mask, int32[B, T], padded on the right."""
    rng = np.random.default_rng(0)
    shape = (len(lengths), max(lengths))
    mask = (np.arange(shape[1])[None] < np.asarray(lengths)[:, None]).astype(np.int32)
    ids = rng.integers(2, vocab_size, shape, np.int32)
    pad_id = {"bert": 0, "roberta": 1}[kind]
    return {
        "input_ids": np.where(mask == 1, ids, np.int32(pad_id)),
        "token_type_ids": rng.integers(0, type_vocab, shape, np.int32),
        "attention_mask": mask,
    }


def torch_states(model, batch):
    """All hidden states [L + 1, B, T, D]."""
    tensors = {key: torch.tensor(value, dtype=torch.long) for key, value in batch.items()}
    with torch.no_grad():
        states = model(**tensors, output_hidden_states=True).hidden_states
    return np.stack([state.float().numpy() for state in states])


def our_states(config, params, batch, run=quick):
    """All hidden states [L + 1, B, T, D], compiled."""

    with jax.default_matmul_precision("highest"):  # Accelerators would round float32 products.
        return run(config, params, {key: jnp.asarray(value) for key, value in batch.items()})


def errors(ours, wanted, batch):
    """Norm of the difference over the norm, per state, at real tokens: [L + 1]."""
    real = batch["attention_mask"] == 1
    ours, wanted = np.asarray(ours, np.float64)[:, real], np.asarray(wanted, np.float64)[:, real]
    difference = np.linalg.norm((ours - wanted).reshape(len(wanted), -1), axis=1)
    return difference / np.linalg.norm(wanted.reshape(len(wanted), -1), axis=1)


def load(folder, dtype="float32", storage_dtype="float32"):
    return pretrained.load(folder, dtype=dtype, storage_dtype=storage_dtype)


@pytest.fixture(scope="module", params=["bert", "roberta"])
def pair(request, tmp_path_factory):
    """(kind, torch model, its folder, a batch, torch's states)."""
    kind = request.param
    model = torch_model(kind)
    folder = tmp_path_factory.mktemp(kind)
    model.save_pretrained(folder)
    batch = random_batch(kind)
    return kind, model, folder, batch, torch_states(model, batch)


# The same function.


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_all_hidden_states_are_those_of_the_torch_model(tmp_path, kind, activation):
    model, batch = torch_model(kind, activation), random_batch(kind)
    model.save_pretrained(tmp_path)
    config, params = load(tmp_path)
    assert config.activation == activation
    wanted = torch_states(model, batch)
    assert wanted.shape == (4, 5, 7, 24)
    assert errors(our_states(config, params, batch), wanted, batch).max() <= TOLERANCE


def test_all_hidden_states_of_a_real_model_are_those_of_the_torch_model(minilm):
    model = transformers.BertModel.from_pretrained(minilm, attn_implementation="eager").eval()
    batch = random_batch("bert", vocab_size=30522, type_vocab=2, lengths=(23, 17, 4))
    config, params = load(minilm)
    assert (config.layers, config.width) == (6, 384)
    found = errors(our_states(config, params, batch), torch_states(model, batch), batch)
    assert found.shape == (7,)
    assert found.max() <= TOLERANCE


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("bert", transformers.BertForPreTraining),
        ("bert", transformers.BertForSequenceClassification),
        ("roberta", transformers.RobertaForMaskedLM),
        ("roberta", transformers.RobertaForSequenceClassification),
    ],
)
def test_a_model_with_a_head_gives_its_encoder(tmp_path, kind, head):
    model, batch = torch_model(kind, head=head), random_batch(kind)
    model.save_pretrained(tmp_path)
    wanted = torch_states(model, batch)
    assert errors(our_states(*load(tmp_path), batch), wanted, batch).max() <= TOLERANCE


def test_sharded_weights_are_the_same_weights(pair, tmp_path):
    _, model, folder, _, _ = pair
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    whole, sharded = load(folder)[1], load(tmp_path)[1]
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, sharded))


@pytest.mark.parametrize("max_shard_bytes", [None, 20_000])
def test_what_is_saved_loads_in_torch_without_the_pooler_and_computes_the_same(
    pair, tmp_path, max_shard_bytes
):
    kind, _, folder, batch, wanted = pair
    config, params = load(folder)
    pretrained.save(tmp_path, config, params, max_shard_bytes=max_shard_bytes)
    model, report = CLASSES[kind][1].from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert set(report["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    np.testing.assert_array_equal(torch_states(model.eval(), batch), wanted)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == kind
    assert transformers.AutoConfig.from_pretrained(tmp_path).layer_norm_eps == config.norm_epsilon


# Other dtypes: a rounding of bfloat16 is 2^-9 = 0.2 % at most. Each of the 3 layers rounds some
# ten times, and weights this large (standard deviation 0.3) amplify what came before.
BFLOAT16_TOLERANCE = 0.03


def test_bfloat16_computes_in_bfloat16_and_stays_near(pair):
    _, _, folder, batch, wanted = pair
    states = our_states(*load(folder, dtype="bfloat16"), batch)
    assert states.dtype == jnp.bfloat16
    found = errors(states.astype(jnp.float32), wanted, batch)
    assert 100 * TOLERANCE < found.max() <= BFLOAT16_TOLERANCE


def test_weights_stored_in_bfloat16_are_rounded_once_and_nothing_else_is(pair):
    _, model, folder, batch, _ = pair
    config, params = load(folder, storage_dtype="bfloat16")
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(weight.bfloat16().float())
    wanted = torch_states(rounded, batch)
    assert errors(our_states(config, params, batch), wanted, batch).max() <= TOLERANCE


# Negative controls: what the tests above must catch.


def swap_query_and_key(config, params):
    attention = params["layers"]["attention"]
    attention["query"], attention["key"] = attention["key"], attention["query"]
    return config, params


def transpose_value(config, params):
    value = params["layers"]["attention"]["value"]
    value["kernel"] = value["kernel"].swapaxes(1, 2)
    return config, params


def reverse_layers(config, params):
    return config, {**params, "layers": jax.tree.map(lambda x: x[::-1], params["layers"])}


def change_epsilon(config, params):
    return dataclasses.replace(config, norm_epsilon=1e-12), params


def take_the_other_gelu(config, params):
    return dataclasses.replace(config, activation="gelu_new"), params


def take_the_other_position_offset(config, params):
    other = {"table": "table after padding", "table after padding": "table"}
    parts = dataclasses.replace(config.parts, positions=other[config.parts.positions])
    return dataclasses.replace(config, parts=parts), params


@pytest.mark.parametrize(
    ("damage", "first", "least"),
    [
        (swap_query_and_key, 1, 0.1),
        (transpose_value, 1, 0.1),
        (reverse_layers, 1, 0.1),
        (take_the_other_position_offset, 0, 0.1),
        # Small mistakes: errors of 1.6e-4 to 3e-3.
        (change_epsilon, 0, 10 * TOLERANCE),
        (take_the_other_gelu, 1, 10 * TOLERANCE),
    ],
)
def test_a_damaged_model_is_told_from_the_right_one(pair, damage, first, least):
    _, _, folder, batch, wanted = pair
    config, params = damage(*load(folder))
    found = errors(our_states(config, params, batch), wanted, batch)
    assert found[first:].min() > least
    assert np.all(found[:first] <= TOLERANCE)  # The damage is after these states.


# Padding and other rows.


def test_ids_under_padding_do_not_reach_real_tokens(tmp_path):
    torch_model("bert").save_pretrained(tmp_path)
    batch = random_batch("bert")
    model = load(tmp_path)
    real = batch["attention_mask"] == 1
    before = np.asarray(our_states(*model, batch))
    changed = {
        **batch,
        "input_ids": np.where(real, batch["input_ids"], np.int32(59)),
        "token_type_ids": np.where(real, batch["token_type_ids"], np.int32(4)),
    }
    after = np.asarray(our_states(*model, changed))
    np.testing.assert_array_equal(after[:, real], before[:, real])
    assert not np.array_equal(after[:, ~real], before[:, ~real])
    unmasked = {**changed, "attention_mask": np.ones_like(batch["attention_mask"])}
    seen = np.asarray(our_states(*model, unmasked))
    assert not np.array_equal(seen[1:, real], before[1:, real])  # The mask is what hides them.


@pytest.mark.checklist(23)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("perturbed", range(len(LENGTHS)))
def test_changing_one_row_leaves_every_other_row_bit_equal(pair, perturbed, dtype):
    _, _, folder, batch, _ = pair
    model = load(folder, dtype=dtype)
    others = np.arange(len(LENGTHS)) != perturbed
    changed = {key: value.copy() for key, value in batch.items()}
    changed["input_ids"][perturbed] = 60 - changed["input_ids"][perturbed]
    changed["token_type_ids"][perturbed] = 4 - changed["token_type_ids"][perturbed]
    changed["attention_mask"][perturbed] = 1
    before, after = (
        np.asarray(our_states(*model, rows, well_compiled).astype(jnp.float32))
        for rows in (batch, changed)
    )
    np.testing.assert_array_equal(after[:, others], before[:, others])
    assert not np.array_equal(after[:, perturbed], before[:, perturbed])


def test_a_row_without_a_real_token_has_finite_states(pair):
    _, _, folder, batch, _ = pair
    empty = {**batch, "attention_mask": np.zeros_like(batch["attention_mask"])}
    assert np.all(np.isfinite(our_states(*load(folder), empty)))
