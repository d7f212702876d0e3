"""A run's folder is the model that its record scored: every method, in a process that saw nothing.

All runs are made once; then one new process loads every folder and scores it again.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest

import memarc
from configs import common
from memarc.data import restaurants
from memarc.models.methods import METHODS
from memarc.report import records
from memarc.runs import run
from memarc.training import export
from tests import commands, tiny_weights

ENCODER = {
    **{method: (method, {}) for method in METHODS},
    "lora b": ("lora", {"train": "b"}),
    "side frozen": ("side", {"downsample": "frozen", "start": "random"}),
    "side replace": ("side", {"merge": "replace", "layers": (1,)}),
    "coins": ("reversible", {"coupling": "bdia", "scale": 0.5}),
    "half": ("reversible", {"arithmetic": "float", "layers": 1, "end": "mean"}),
}
DECODER = {
    "gpt2 lora b": ("gpt2", "lora", {"train": "b"}),
    "gpt2 reversible": ("gpt2", "reversible", {}),
    "llama side": ("llama", "side", {"downsample": "frozen", "start": "random"}),
    "llama head": ("llama", "head", {}),
}
OFTEN = ("full", "head", "bitfit", "adapter", "lora b", "side frozen", "coins", "gpt2 lora b")
"""Cases that are always made: every method, with the options that draw what stays frozen."""

CASES = [
    pytest.param(case, marks=[pytest.mark.slow] * (case not in OFTEN))
    for case in (*ENCODER, *DECODER)
]


def _has_case(item):
    """Whether a collected test is one of this file's cases."""
    return item.fspath == __file__ and hasattr(item, "callspec")


@pytest.fixture(scope="module")
def made(weights, tmp_path_factory, request):
    """Folder and record of every case that is tested."""
    wanted = {item.callspec.params["case"] for item in request.session.items if _has_case(item)}
    root = tmp_path_factory.mktemp("made")
    words = len(restaurants.tokenizer())
    decoders = {
        kind: tiny_weights.draw(root / kind, tiny_weights.decoder(kind, words, 80))
        for kind in ("gpt2", "llama")
    }
    found = {}
    for case in (*ENCODER, *DECODER):
        if case not in wanted | {"lora b", "head", "gpt2 lora b"}:
            continue
        if case in ENCODER:
            method, options = ENCODER[case]
            config = common.classification("reviews")
            config.data.update(source="embedded", tokenizer="word_level", train_rows=60)
            config.data.update(max_length=24, buckets=(24,), dev_rows=31)
            config.model.weights = weights
        else:
            kind, method, options = DECODER[case]
            config = common.generation("restaurants")
            common.restaurants(config)
            common.greedy(config)
            config.decoding.max_tokens = 4
            config.data.update(train_rows=60, dev_rows=12, buckets=(80,))
            config.model.weights = decoders[kind]
        config.data.root = None
        config.method = method
        config.options.side.reduction = 2
        config.options[method].update(options)
        config.privacy.update(delta=1e-3, engine="vmap", expected_batch_size=20)
        config.privacy.update(microbatch_size=3, physical_batch_size=8)
        config.training.update(eval_batch_size=31, log_every=1)
        (record,) = run.run_all(config.to_dict(), root / case)
        found[case] = root / case, record
    return found


@pytest.fixture(scope="module")
def scored_elsewhere(made):
    """Case -> the scores that a new process finds from the folders alone."""
    folders = {str(folder): case for case, (folder, _) in made.items()}
    done = commands.run("tests.runs.score_process", *folders)
    assert done.returncode == 0, done.stderr[-2000:]
    return {folders[name]: x for name, x in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.checklist(47)
@pytest.mark.parametrize("case", CASES)
def test_the_folder_alone_scores_what_the_record_says(made, scored_elsewhere, case):
    _, record = made[case]
    assert scored_elsewhere[case].keys() == record.scores.keys()
    for name, value in record.scores.items():
        assert scored_elsewhere[case][name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.checklist(47)
def test_drawn_leaves_that_were_not_saved_would_show(made):
    """A negative control: other frozen factors beside the trained ones score otherwise."""
    folder, record = made["gpt2 lora b"]
    tuned = memarc.load(folder)
    other = jax.tree.map(lambda x: x[..., ::-1], tuned.frozen["drawn"])
    assert jax.tree.leaves(other)
    frozen = {**tuned.frozen, "drawn": jax.tree.map(lambda x: 1e4 * x, other)}
    again = dataclasses.replace(tuned, frozen=frozen).evaluate()
    name = "dev_perplexity"
    assert again[name] != pytest.approx(record.scores[name], rel=1e-4)


@pytest.mark.parametrize("case", CASES[: len(ENCODER)])
def test_every_method_trains_is_scored_and_recorded(made, case):
    folder, record = made[case]
    assert records.read(folder / "record.json") == record
    assert record.method == ENCODER[case][0] and record.task == "reviews" and record.steps == 3
    assert record.accountant == "pld" and 7.9 < record.epsilon == record.epsilon_pld <= 8.0
    assert record.epsilon_rdp > record.epsilon
    assert record.sampling_rate == 20 / 60 and record.noise_multiplier > 0
    assert record.reproducible_noise is False
    assert record.scores.keys() == {"dev_accuracy", "dev_undefined"}
    assert record.scores["dev_accuracy"] * 31 == pytest.approx(
        round(record.scores["dev_accuracy"] * 31)
    )
    released, drawn = export.load(folder)
    sizes = [leaf.size for leaf in jax.tree.leaves(released)]
    assert sum(sizes) == record.trainable_parameters <= record.total_parameters
    assert record.memory["backward_bytes"] == 3 * record.memory["backward_bytes_per_example"]
    assert record.memory["backward_bytes"] > 0
    # No checkpoint stays: it would hold the noise key.
    parts = {"ledger.jsonl", "log.jsonl", "record.json", "trainable.safetensors"}
    parts |= {"drawn.safetensors"} if jax.tree.leaves(drawn) else set()
    assert {path.name for path in folder.iterdir()} == parts


def test_predictions_are_in_the_order_of_the_texts_and_agree_with_their_probabilities(made):
    tuned = memarc.load(made["lora b"][0])
    texts = ["the food was great", "bad", "although the room was clean , the food was bad"] * 3
    found = tuned.probabilities(texts)
    assert found.shape == (9, 2)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found[3:6], found[:3], rtol=1e-5)
    np.testing.assert_allclose(tuned.probabilities(texts[1:2])[0], found[1], rtol=1e-5)
    assert tuned.predict(texts) == [tuned.labels[i] for i in found.argmax(1)]
    with pytest.raises(
        ValueError, match=r"one of classification, which has no write\(\); call predict\(\)"
    ):
        tuned.write(["x"])


def test_a_folder_of_other_parameters_is_refused(made, tmp_path):
    folder, other = made["lora b"][0], made["head"][0]
    for name in ("record.json", "trainable.safetensors", "drawn.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    memarc.load(tmp_path)
    (tmp_path / "trainable.safetensors").write_bytes((other / "trainable.safetensors").read_bytes())
    with pytest.raises(ValueError, match="are not those of its record's model"):
        memarc.load(tmp_path)
    with pytest.raises(ValueError, match="No weights at '/nowhere/x'"):
        memarc.load(folder, weights="/nowhere/x")
