"""What a compiler says when a program does not fit its device is read as bytes."""

import pytest

from memarc.report import targets


@pytest.mark.parametrize("target", ["tpu:v9", "gpu:4x4", "abacus", "tpu", "cpu:h100", "gpu:"])
def test_an_unknown_target_lists_the_choices_and_how_slices_are_written(target):
    with pytest.raises(ValueError, match=rf"Unknown target '{target}'.*such as 'tpu:v5e:4x4'"):
        targets.devices(target)


def test_the_local_target_is_one_device():
    assert len(targets.devices("cpu")) == 1


@pytest.mark.parametrize("target", ["gpu:h100:0", "gpu:h100:2x4", "gpu:a100:many"])
def test_a_number_of_gpus_that_is_none_is_told(target):
    with pytest.raises(ValueError, match=rf"{target} names no number of GPUs; give gpu:\w+:8"):
        targets.devices(target)


def test_peaks_are_those_of_the_named_chip():
    assert targets.least_seconds("gpu:h100", 989e12, 900e9) == (1.0, 2.0)
    assert targets.least_seconds("tpu:v5e:4x4", 197e12, 100e9) == (1.0, 0.5)
    assert targets.least_seconds("gpu", 1e12, 0) is None
    assert targets.least_seconds("tpu:v4", 1e12, 0) is None
