"""A generation config in, texts, scores and a record out."""

import dataclasses
import json

import numpy as np
import pytest

from configs import common
from memarc.data import restaurants
from memarc.evaluation import text_scores
from memarc.models import pretrained
from memarc.runs import assemble, run
from memarc.runs.parse import parse
from tests import tiny_weights


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    """A folder with a tiny random GPT-2 that fits the embedded task's tokenizer."""
    sizes = tiny_weights.decoder("gpt2", len(restaurants.tokenizer()), 80)
    return tiny_weights.draw(tmp_path_factory.mktemp("decoder"), sizes)


@pytest.fixture
def config(decoder):
    """Three steps of 20 rows expected; beams on ten inputs."""
    config = common.generation("restaurants")
    common.restaurants(config)
    config.seed = 5
    config.data.update(train_rows=60, dev_rows=30)
    config.model.weights = decoder
    config.decoding.update(max_tokens=6, beams=2)
    config.options.side.reduction = 2
    config.privacy.update(
        delta=1e-3,
        engine="vmap",
        expected_batch_size=20,
        microbatch_size=3,
        physical_batch_size=8,
    )
    config.training.update(epochs=1.0, eval_batch_size=4, log_every=1, checkpoint_every=1)
    return config


def read_outputs(folder):
    lines = (folder / "outputs-dev.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "method",
    ["bitfit", *(pytest.param(x, marks=pytest.mark.slow) for x in ("lora", "reversible", "side"))],
)
def test_a_method_trains_writes_texts_and_is_scored(config, tmp_path, method):
    config.method = method
    (record,) = run.run_all(config.to_dict(), tmp_path)
    assert (record.task, record.method, record.steps) == ("restaurants", method, 3)
    assert record.unit == "one reference row" and 7.9 < record.epsilon <= 8.0
    lines = read_outputs(tmp_path)
    assert len(lines) == 10 and all(len(line["references"]) == 3 for line in lines)
    names = text_scores.SCORES.keys() & {name.removeprefix("dev_") for name in record.scores}
    again = text_scores.score(
        sorted(names), [x["output"] for x in lines], [x["references"] for x in lines]
    )
    assert {f"dev_{name}": value for name, value in again.items()}.items() <= record.scores.items()
    assert record.scores["dev_unfinished"] == np.mean([not x["is_finished"] for x in lines])
    assert record.scores["dev_cut_prompts"] == 0.0
    # Random weights: no better than chance, no worse than a wrong word at every place.
    assert 40 < record.scores["dev_perplexity"] < 400
    assert record.headline == record.scores["dev_bleu"]


def test_a_meaning_representation_can_be_the_unit(config, tmp_path):
    config.data.update(unit="input", references_per_group=2, train_rows=90)
    (chosen,) = parse(config.to_dict())
    assembled = assemble.assemble(chosen)
    groups = len(assembled.splits.train)
    assert 30 < groups < 60  # Of 90 references.
    assert assembled.mechanism.sampler.num_examples == groups
    (record,) = run.run_all(config.to_dict(), tmp_path)
    assert record.unit == "one meaning representation with its first 2 references"
    assert record.sampling_rate == 20 / groups


def test_a_config_can_hold_others_that_run_with_it(config):
    config.more = {"second": config.copy_and_resolve_references(), "third": config.to_dict()}
    config.more.second.method = "side"
    config.more.third.runs = {"a": {"method": "adapter"}, "b": {"method": "full"}}
    found = {x.name: x.method for x in parse(config.to_dict())}
    assert found == {"lora": "lora", "second": "side", "a": "adapter", "b": "full"}
    assert [x.name for x in parse(config.to_dict(), ["b"])] == ["b"]
    config.more.second.method = "lora"
    config.more.third.runs = {"lora": {}}
    with pytest.raises(ValueError, match=r"more\.third repeats the names of runs \['lora'\]"):
        parse(config.to_dict())
    config.more.third.runs = {"a": {}, "b": {}}
    with pytest.raises(ValueError, match=r"no run \['c'\]; its runs are \['lora', 'second', 'a'"):
        parse(config.to_dict(), ["c"])
    config.repeats = 2
    assert [x.name for x in parse(config.to_dict(), ["b", "lora"])] == [
        "lora",
        "lora-r2",
        "b",
        "b-r2",
    ]
    config.more.third.repeats = 2
    with pytest.raises(ValueError, match=r"more\.third\.repeats is 2; give config\.repeats"):
        parse(config.to_dict())


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("data", {"max_length": 300, "buckets": (48, 300)}, "max_length is 300; the backbone has"),
        ("data", {"separator": "[SEPARATOR]"}, r"'\[SEPARATOR\]'"),
        ("data", {"tokenizer": "./absent"}, "There is no tokenizer folder absent"),
        ("decoding", {"beams": 0}, "beams is 0; give at least 1"),
        ("decoding", {"max_tokens": 60}, "98 in all; the backbone has positions for 80"),
        ("head", {"chunk": 0}, "chunk is 0"),
        ("optimizer", {"head_first": 0.5}, r"optimizer\.head_first is 0\.5; this model"),
        ("optimizer", {"head_factor": 5.0}, r"optimizer\.head_factor is 5\.0; this model"),
        ("decoding", {"seed": 2**70}, "seed is 1180591620717411303424"),
    ],
)
def test_a_mistake_is_found_before_training(config, section, changes, message):
    config[section].update(changes)
    with pytest.raises(ValueError, match=message):
        assemble.assemble(parse(config.to_dict())[0])


@pytest.mark.parametrize("count", [100, 126 + 512, 126 + 513])
def test_a_tokenizer_of_other_weights_is_refused(config, tmp_path, decoder, count):
    """One with more ids, or with so few that the table's other rows are no padding."""
    found, params = pretrained.load(decoder, dtype="float32", storage_dtype="float32")
    params["embeddings"]["word"] = np.resize(params["embeddings"]["word"], (count, found.width))
    pretrained.save(tmp_path, dataclasses.replace(found, vocab_size=count), params)
    config.model.weights = str(tmp_path)
    if count == 126 + 512:
        assert assemble.assemble(parse(config.to_dict())[0]).backbone.vocab_size == count
        return
    with pytest.raises(ValueError, match=f"has {count} rows, tokenizer .* 126 ids. Give the token"):
        assemble.assemble(parse(config.to_dict())[0])


@pytest.mark.checklist(31)
def test_a_tokenizer_that_has_read_private_rows_is_refused(config, tmp_path):
    """Its words tell of them; the weights beside it may be others."""
    (tmp_path / "pretraining.json").write_text(
        '{"steps": 3, "source": "Read was X.", "not_private": ["restaurants"]}'
    )
    restaurants.tokenizer().save_pretrained(tmp_path)
    config.data.tokenizer = str(tmp_path)
    with pytest.raises(ValueError, match="trained without privacy on rows of task 'restaurants'"):
        assemble.assemble(parse(config.to_dict())[0])


def test_an_encoder_cannot_write(config, weights):
    config.model.weights = weights
    config.data.update(max_length=32, buckets=(32,), max_prompt=20)
    with pytest.raises(ValueError, match="bert backbone is an encoder"):
        assemble.assemble(parse(config.to_dict())[0])
