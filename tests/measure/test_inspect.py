"""What is said of a model before training is right, by hand and against negative controls."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from memarc.batches import ATTENTION_MASK, INPUT_IDS, IS_TARGET
from memarc.measure import inspect
from memarc.models import backbone, pretrained
from memarc.models.families.known import make_config
from tests.data.test_gguf_tokenizer import PRE_TOKENIZERS, trained

SIZES = dict(
    width=16,
    layers=3,
    heads=4,
    feed_forward=20,
    max_positions=60,
    norm_epsilon=1e-5,
    dtype="float32",
)


def folder_of(folder, kind, **more):
    """A folder with random weights and no tokenizer."""
    config = make_config(kind, **SIZES, **more)
    params = jax.jit(functools.partial(backbone.init, config))(jax.random.key(0))
    pretrained.save(folder, config, jax.device_get(params))
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder")
    return inspect.open_model(
        folder_of(folder, "llama", vocab_size=501, kv_heads=2, activation="silu")
    )


def test_facts_are_those_of_the_sizes(decoder):
    facts = inspect.facts(decoder)
    # A table; by layer four maps of attention, three of the feed-forward block, two norms; a norm.
    layer = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 20 + 2 * 16
    tables = 501 * 16 * (1 + decoder.config.has_table)
    assert facts["parameters"] == tables + 3 * layer + 16
    assert facts["family"] == "llama" and facts["sizes"]["key_heads"] == 2
    assert facts["file_dtypes"] == {"F32": 3 * 9 + 2 + decoder.config.has_table}


def test_rows_without_a_tokenizer_are_random_ids_of_different_lengths(decoder):
    batch = inspect.public_batch(decoder.config, None, 4, 12)
    assert batch[ATTENTION_MASK].sum(1).tolist() == [3, 6, 9, 12]
    assert (
        batch[INPUT_IDS].max() < 501 and (batch[INPUT_IDS] * (1 - batch[ATTENTION_MASK])).max() == 0
    )
    for rows, length in ((0, 5), (2, 1), (2, 61)):
        with pytest.raises(
            ValueError, match=f"batch_size is {rows} and seq_len {length}; .* 60 tok"
        ):
            inspect.public_batch(decoder.config, None, rows, length)


def test_rows_with_a_tokenizer_are_plain_sentences(decoder, tmp_path):
    import transformers

    backend = trained(PRE_TOKENIZERS["smollm"])
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    tokenizer = inspect.tokenizer_of(tmp_path)
    batch = inspect.public_batch(decoder.config, tokenizer, 3, 50)
    text = backend.decode(batch[INPUT_IDS][0].tolist())
    assert text.startswith("The committee met on Tuesday")
    assert len(set(batch[ATTENTION_MASK].sum(1).tolist())) > 1
    small = dataclasses.replace(decoder.config, vocab_size=40)
    with pytest.raises(ValueError, match="more than 40 ids"):
        inspect.public_batch(small, tokenizer, 3, 50)


def test_no_tokenizer_beside_the_weights_is_none(decoder):
    assert inspect.tokenizer_of(decoder.place) is None


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_states_are_compared_with_transformers(decoder, tmp_path, kind):
    pytest.importorskip("torch")
    model = decoder
    if kind == "bert":
        more = dict(vocab_size=61, type_vocab=2, pad_id=0, activation="gelu")
        model = inspect.open_model(folder_of(tmp_path, "bert", **more))
    batch = inspect.public_batch(model.config, None, 3, 7)
    found = inspect.compare(model, batch, is_wanted=True)
    assert 0 < found["states_error"] < 1e-5
    assert (found["logits_error"] is None) == (kind == "bert")
    wrong = jax.tree.map(lambda x: x * 1.01, model.params)
    found = inspect.compare(dataclasses.replace(model, params=wrong), batch, is_wanted=True)
    assert found["states_error"] > 5e-3


def test_without_torch_nothing_is_compared(decoder, monkeypatch):
    monkeypatch.setattr(inspect.peer, "is_installed", lambda: False)
    batch = inspect.public_batch(decoder.config, None, 3, 7)
    wanted = {"states_error": None, "logits_error": None}
    assert inspect.compare(decoder, batch, is_wanted=True) == wanted


def test_reversal_comes_back_and_a_value_out_of_range_is_counted(decoder):
    batch = inspect.public_batch(decoder.config, None, 3, 7)
    assert inspect.reversal(decoder, batch) == {"mismatched_values": 0, "saturated_values": 0}
    params = jax.tree.map(np.asarray, decoder.params)
    table = params["embeddings"]["word"].copy()
    row = batch[INPUT_IDS][0, 0]
    table[row] = 1e9  # A token that random ids did not show when ranges were chosen.
    wild = {**params, "embeddings": {"word": table}}
    found = inspect.reversal(dataclasses.replace(decoder, params=wild), batch)
    assert found["saturated_values"] > 0


def test_losses_are_nats_a_token(decoder):
    batch = inspect.public_batch(decoder.config, None, 3, 7)
    found = inspect.losses(decoder, batch)
    with jax.default_matmul_precision("highest"):
        _, logits = inspect.peer._ours(decoder.config, decoder.params, batch)
    logs = np.asarray(jax.nn.log_softmax(logits[:, :-1]))
    said = np.take_along_axis(logs, batch[INPUT_IDS][:, 1:, None], -1)[..., 0]
    real = batch[IS_TARGET][:, 1:] == 1
    assert found["plain_loss"] == pytest.approx(-said[real].mean(), rel=1e-4)
    assert found["start_loss"] == pytest.approx(found["plain_loss"], rel=1e-2)
    assert found["start_loss"] != found["plain_loss"]


def test_a_method_takes_bytes_or_says_why_it_does_not_work(decoder):
    line = inspect.step_of(decoder.config, "lora", ["vmap"], 2, 5)
    weights = 4 * inspect.facts(decoder)["parameters"]
    assert line["engine"] == "vmap" and line["reserved_bytes"] > line["arguments_bytes"] > weights
    assert inspect.step_of(decoder.config, "bitfit", ["ghost"], 2, 5).keys() == {"error"}
    assert "reduction" in inspect.step_of(decoder.config, "side", ["vmap"], 2, 5)["error"]
    with pytest.raises(ValueError, match="Unknown method 'prefix'; choose one of"):
        inspect.step_of(decoder.config, "prefix", ["vmap"], 2, 5)
