"""Pre-training on public rows writes folders that everything else, and transformers, can read."""

import importlib
import json

import numpy as np
import pytest

from experiments import pretrain, public_rows
from memarc.data import tokenize
from memarc.models import pretrained
from memarc.report import records


def config_of(name, **changes):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.update(steps=3, warmup_steps=1, batch_tokens=640, **changes)
    config.backbone.update(width=16, layers=2, heads=2, feed_forward=24)
    return config


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Runs the command on a config; returns its folder."""

    def make(config):
        monkeypatch.setattr(pretrain.cli, "config", lambda: config)
        monkeypatch.setattr(pretrain.cli, "workdir", lambda: str(tmp_path))
        assert pretrain.main() == 0
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("name", "kind"), [("pretrain_reviews", "bert"), ("pretrain_restaurants", "gpt2")]
)
def test_a_backbone_is_written_with_what_was_read(made, name, kind):
    rows = {"rows": 300} if kind == "bert" else {"restaurant_rows": 300}
    folder = made(config_of(name, **rows))
    config, _ = pretrained.load(folder / "backbone", dtype="float32", storage_dtype="float32")
    assert (config.kind, config.width, config.layers) == (kind, 16, 2)
    record = json.loads((folder / "backbone" / "pretraining.json").read_text())
    assert record["rows"] == 300 and "memarc.data." in record["source"]
    stated = records.provenance(str(folder / "backbone"), "sst2")
    assert "trained from scratch in 3 steps" in stated and record["source"] in stated


def test_a_tokenizer_is_learned_from_public_text_and_saved_with_the_weights(made):
    """The path of the small GPT-2, on the grammar alone: transformers loads both."""
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    config = config_of("pretrain_gpt2_small", restaurant_rows=300, vocab_size=500)
    config.sources = ("restaurants",)
    folder = made(config) / "backbone"
    codec = tokenize.load_tokenizer(str(folder), needs_pad=False)
    text = "Try The Copper Kettle, a café for £20."
    assert codec.decode(codec(text)["input_ids"]) == text and len(codec) == 500
    assert codec.eos_token == "<|endoftext|>" and codec.eos_token_id == 0
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    ids = torch.tensor([codec(text)["input_ids"]])
    assert np.isfinite(model(ids).logits.detach().numpy()).all()


def test_unknown_kinds_and_sources_are_named(made):
    config = config_of("pretrain_restaurants", restaurant_rows=30)
    config.sources = ("books",)
    with pytest.raises(ValueError, match="knows the words of source 'restaurants' only"):
        public_rows.plain_text(config)
    config.tokenizer = "trained"
    with pytest.raises(ValueError, match="Unknown source 'books'; choose from"):
        public_rows.plain_text(config)
    config.sources = ()
    with pytest.raises(ValueError, match="hold no row"):
        public_rows.plain_text(config)
    for field, value, message in (
        ("storage_dtype", "float16", "storage_dtype is 'float16'"),
        ("steps", 1, "steps is 1; give more than config.warmup_steps, 1"),
        ("batch_tokens", 0, "batch_tokens is 0"),
    ):
        broken = config_of("pretrain_restaurants", restaurant_rows=30)
        broken[field] = value
        with pytest.raises(ValueError, match=message):
            made(broken)
    config.kind = "images"
    with pytest.raises(ValueError, match="kind is 'images'; give a config"):
        made(config)
