"""Every config file loads, and its smoke preset is a run that can be put together."""

import importlib
import pathlib

import jax
import pytest

from configs import common
from memarc.measure import case as cases
from memarc.privacy.mechanism import PrivacyConfig
from memarc.runs import assemble
from memarc.runs.parse import parse
from tests.backbone_shapes import shapes_of
from tests.test_paper import TRAIN_ROWS

CONFIGS = pathlib.Path(common.__file__).parent
NAMES = sorted(
    path.stem
    for path in CONFIGS.glob("*.py")
    if path.stem not in ("__init__", "common", "shapes", "audit", "own")
    and not path.stem.startswith("pretrain_")
)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_gives_checked_settings(name):
    module = importlib.import_module(f"configs.{name}")
    for preset in getattr(module, "PRESETS", common.PRESETS):
        assert parse(module.get_config(preset).to_dict())


@pytest.mark.parametrize("name", [*NAMES, "own"])
def test_the_smoke_preset_can_be_put_together(name):
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    for run in parse(config.to_dict()):
        assembled = assemble.assemble(run)
        assert assembled.mechanism.steps <= 5


def test_paper_configs_take_the_accountant_of_the_papers_and_own_data_the_one_of_less_noise():
    by_rdp = {"sst2", "mnli", "qnli", "qqp", "e2e", "smollm2_e2e"}
    for name in {*by_rdp, "quickstart"}:
        for run in parse(importlib.import_module(f"configs.{name}").get_config().to_dict()):
            assert run.privacy.accountant == ("rdp" if name in by_rdp else "pld")
    assert PrivacyConfig(epsilon=8.0, delta=1e-5).accountant == "pld"


PUBLISHED = {  # Parameters of the models as they were released; RoBERTa's without its pooler.
    "gpt2_large": 774_030_080,
    "qwen2_7b": 7_615_616_512,
    "llama_7b": 6_738_415_616,
    "llama_70b": 68_976_648_192,
    "roberta_large": 355_359_744 - 1024 * 1025,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_to_measure_are_those_of_the_published_model(name):
    config = importlib.import_module(f"configs.memory.{name}").get_config()
    case = cases.parse(config.to_dict(), "reversible", batch_size=2, seq_len=8, layers=None)
    params = shapes_of(case.backbone)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PUBLISHED[name]
    assert case.storage_dtype == case.backbone.dtype == "bfloat16"


@pytest.mark.parametrize("name", ["sst2", "e2e", "pretrain_gpt2_small"])
def test_an_unknown_preset_is_named(name):
    with pytest.raises(ValueError, match="Unknown preset 'large'; choose one of"):
        importlib.import_module(f"configs.{name}").get_config("large")


def test_the_small_decoders_that_e2e_starts_from_are_what_their_presets_make():
    """Each preset of E2E names the weights of one preset of pre-training, whose files it has."""
    e2e, small = (
        importlib.import_module(f"configs.{name}") for name in ("e2e", "pretrain_gpt2_small")
    )
    for preset, pretraining in {"full": "gpu", "cpu": "cpu"}.items():
        run, decoder = e2e.get_config(preset), small.get_config(pretraining)
        assert run.model.weights == f"weights/{pretraining}/backbone" == run.data.tokenizer
        assert run.model.storage_dtype == decoder.storage_dtype
        assert run.data.max_prompt + run.decoding.max_tokens <= decoder.max_length
        assert run.data.separator == decoder.separator


@pytest.mark.parametrize("task", ["sst2", "qnli", "qqp", "mnli", "e2e"])
def test_delta_is_below_one_over_the_published_rows(task):
    """A plan refuses any other, after the rows are read."""
    config = importlib.import_module(f"configs.{task}").get_config()
    assert all(one.privacy.delta < 1 / TRAIN_ROWS[task] for one in parse(config.to_dict()))
