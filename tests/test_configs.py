"""Every config file loads, and its smoke preset is a run that can be put together."""

import importlib
import pathlib

import pytest

from configs import common
from experiments import assemble, settings

CONFIGS = pathlib.Path(common.__file__).parent
NAMES = sorted(
    path.stem
    for path in CONFIGS.glob("*.py")
    if path.stem not in ("__init__", "common", "shapes", "audit")
    and not path.stem.startswith("pretrain_")
)


@pytest.mark.parametrize("preset", common.PRESETS)
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_gives_checked_settings(name, preset):
    config = importlib.import_module(f"configs.{name}").get_config(preset)
    assert settings.parse(config)


@pytest.mark.parametrize("name", NAMES)
def test_the_smoke_preset_can_be_put_together(name):
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    for run in settings.parse(config):
        assembled = assemble.assemble(run)
        assert assembled.mechanism.steps <= 5


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match="Unknown preset 'large'; choose one of"):
        importlib.import_module("configs.sst2").get_config("large")
