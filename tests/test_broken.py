"""The mechanisms that audits must expose are made of the code as it stands."""

import shutil

import pytest

from tests import broken, mutants


@pytest.mark.parametrize("mechanism", broken.read(), ids=lambda x: x["name"])
def test_every_change_fits_one_place_and_is_python(mechanism, tmp_path):
    for change in mechanism["changes"]:
        (tmp_path / change["file"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mutants.ROOT / change["file"], tmp_path / change["file"])
    broken.break_copy(mechanism, tmp_path)
    for change in mechanism["changes"]:
        changed = (tmp_path / change["file"]).read_text()
        assert changed != (mutants.ROOT / change["file"]).read_text()
        compile(changed, change["file"], "exec")


def test_five_broken_mechanisms_no_noise_and_two_controls_are_listed():
    found = {mechanism["name"]: mechanism["is_broken"] for mechanism in broken.read()}
    assert found.pop("as it is") is False and found.pop("canaries never in") is False
    assert len(found) == 6 and all(found.values()) and "no noise" in found
