"""Pre-training on public rows writes folders that everything else, and transformers, can read."""

import importlib
import json
import shutil

import jax
import numpy as np
import pytest

from memarc.data import tokenize
from memarc.models import pretrained
from memarc.pretraining import recipe, train
from memarc.pretraining import rows as public_rows
from memarc.report import records


def config_of(name, **changes):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.update(steps=3, warmup_steps=1, batch_tokens=640, **changes)
    config.backbone.update(width=16, layers=2, heads=2, feed_forward=24)
    return config


@pytest.fixture
def made(tmp_path):
    """Pre-trains by a config; returns the folder that holds the backbone's."""

    def make(config):
        train.pretrain(config.to_dict(), tmp_path / "backbone")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("name", "kind"), [("pretrain_reviews", "bert"), ("pretrain_restaurants", "gpt2")]
)
def test_a_backbone_is_written_with_what_was_read(made, name, kind):
    decoder = {"sources": {"restaurants": 300}, "dtype": "bfloat16"}
    folder = made(config_of(name, **({"rows": 300} if kind == "bert" else decoder)))
    config, _ = pretrained.load(folder / "backbone", dtype="float32", storage_dtype="float32")
    assert (config.kind, config.width, config.layers) == (kind, 16, 2)
    record = json.loads((folder / "backbone" / "pretraining.json").read_text())
    assert record["rows"] == 300 and "memarc.data." in record["source"]
    stated = records.provenance(str(folder / "backbone"), "sst2")
    assert "trained from scratch in 3 steps" in stated and record["source"] in stated


def test_a_tokenizer_is_learned_from_public_text_and_saved_with_the_weights(made):
    """The path of the small GPT-2, on the grammar alone: transformers loads both."""
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    config = config_of("pretrain_gpt2_small", vocab_size=500, cycles=1)
    config.update(max_length=96, buckets=(96,))
    config.sources = {"restaurants": 300}
    folder = made(config) / "backbone"
    codec = tokenize.load_tokenizer(str(folder), needs_pad=False)
    text = "Try The Copper Kettle, a café for £20."
    assert codec.decode(codec(text)["input_ids"]) == text and len(codec) == 500
    assert codec.eos_token == "<|endoftext|>" and codec.eos_token_id == 0
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    ids = torch.tensor([codec(text)["input_ids"]])
    assert np.isfinite(model(ids).logits.detach().numpy()).all()


def test_a_command_that_was_stopped_goes_on_from_the_last_cycle(
    made, monkeypatch, capsys, tmp_path
):
    def weights(folder):
        return (folder / "backbone" / "model.safetensors").read_bytes()

    config = config_of("pretrain_restaurants", sources={"restaurants": 300}, cycles=2)
    config.buckets = (80,)
    whole = weights(made(config))
    made(config)
    assert capsys.readouterr().out.count("Cycle") == 2  # A finished one is not made again.

    shutil.rmtree(made(config) / "backbone")
    real = train.train

    def stopped(recipe, rows, params, cycle):
        if cycle == 1:
            raise KeyboardInterrupt
        return real(recipe, rows, params, cycle)

    monkeypatch.setattr(train, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        made(config)
    monkeypatch.setattr(train, "train", real)
    # As a kill between two renames would leave it.
    (tmp_path / "backbone").rename(tmp_path / "backbone.old")
    config.seed = 1
    with pytest.raises(ValueError, match="holds weights of another config; give another --workdir"):
        made(config)
    config.seed = 0
    folder = made(config)
    assert weights(folder) == whole
    stated = json.loads((folder / "backbone" / "pretraining.json").read_text())
    assert (stated["cycles"], stated["steps"]) == (2, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]


SOURCES = {"webnlg": ["webnlg", "dart"], "venues": ["webnlg", "dart"], "copies": ["webnlg", "dart"]}
SOURCES |= {"sst2": ["sst2"], "restaurants": []}


@pytest.mark.checklist(31)
@pytest.mark.parametrize("source", SOURCES)
def test_weights_name_every_task_whose_rows_they_have_read(source, tmp_path):
    """DART holds WebNLG's texts; two grammars take their words from them."""
    texts = {"tripleset": [["Oslo", "is_in", "Norway"]], "annotations": [{"text": "Oslo, Norway"}]}
    for name, text in {
        "webnlg2017/train.json": json.dumps([texts]),
        "sst2/train.tsv": "sentence\tlabel\ngood\t1\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(text)
    config = config_of("pretrain_gpt2_small", vocab_size=300, root=str(tmp_path))
    config.sources = {source: 1}
    assert list(public_rows.plain_text(config.to_dict()).not_private) == SOURCES[source]


def test_unknown_kinds_and_sources_are_named(made):
    config = config_of("pretrain_restaurants")
    config.sources = {"books": 30}
    with pytest.raises(ValueError, match="knows the words of source 'restaurants' only"):
        public_rows.plain_text(config.to_dict())
    config.tokenizer = "trained"
    with pytest.raises(ValueError, match="Unknown source 'books'; choose from"):
        public_rows.plain_text(config.to_dict())
    config.sources = {"venues": None}
    with pytest.raises(ValueError, match=r"sources\.venues is None; say how many"):
        public_rows.plain_text(config.to_dict())
    config.sources = {}
    with pytest.raises(ValueError, match="hold no row"):
        public_rows.plain_text(config.to_dict())
    for field, value, message in (
        ("storage_dtype", "float16", "storage_dtype is 'float16'"),
        ("steps", 1, "steps is 1; give more than config.warmup_steps, 1"),
        ("batch_tokens", 0, "batch_tokens is 0"),
    ):
        broken = config_of("pretrain_restaurants", sources={"restaurants": 30})
        broken[field] = value
        with pytest.raises(ValueError, match=message):
            made(broken)
    config.kind = "images"
    with pytest.raises(ValueError, match="kind is 'images'; give a config"):
        made(config)


def test_a_shift_of_positions_is_one_rotation_of_their_waves():
    waves = train.waves(40, 12)
    np.testing.assert_allclose(waves[1, [0, 6]], [np.sin(1.0), np.cos(1.0)], atol=1e-6)
    products = waves @ waves.T
    for shift in (0, 1, 7):
        along = np.diag(products, shift)
        np.testing.assert_allclose(along, along[0], atol=1e-5)
    assert np.abs(np.diff([products[0, 0], products[0, 1], products[0, 7]])).min() > 0.1


def test_positions_start_as_the_config_says(made):
    starts = {}
    for start in recipe.POSITIONS:
        config = config_of("pretrain_restaurants", sources={"restaurants": 30})
        config.positions = start
        rows = public_rows.plain_text(config.to_dict())
        params = train.random_start(
            recipe.parse(config.to_dict()), rows.backbone, jax.random.key(0)
        )
        starts[start] = np.asarray(params["embeddings"]["position"])
    waves, random = starts["waves"], starts["random"]
    assert 0.8 < waves.std() / random.std() < 1.1  # Long waves are cut short.
    assert np.corrcoef(waves[5], waves[6])[0, 1] > 0.5 > np.corrcoef(random[5], random[6])[0, 1]
    broken = config_of("pretrain_restaurants", sources={"restaurants": 30})
    broken.positions, broken.backbone.kind = "waves", "llama"
    with pytest.raises(ValueError, match="a llama has no table"):
        made(broken)
    broken.positions = "sines"
    with pytest.raises(ValueError, match="positions is 'sines'; choose one of"):
        made(broken)
