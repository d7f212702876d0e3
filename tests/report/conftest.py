"""A record for tests."""

import dataclasses

import pytest

from memarc.report import records


@pytest.fixture
def example():
    """A function that gives a record with some fields changed."""
    return made


def made(**changes):
    record = records.Record(
        name="lora-inf",
        method="lora",
        task="sst2",
        backbone="bert",
        engine="vmap",
        epsilon=float("inf"),
        epsilon_pld=float("inf"),
        delta=1e-5,
        clip_norm=1.0,
        clipping="abadi",
        noise_multiplier=0.0,
        sampling_rate=0.25,
        expected_batch_size=16,
        steps=9,
        neighbouring="add_or_remove_one",
        unit="one row",
        reproducible_noise=False,
        trainable_parameters=1234,
        total_parameters=56789,
        scores={"dev_accuracy": 0.8123, "dev_f1": 0.5},
        seconds=61.4,
        compile_seconds=2.0,
        examples_per_second=3.5,
        memory={"backward_bytes_permade": 2**20, "backward_bytes": 3 * 2**20},
        device="cpu",
        versions={"jax": "0"},
        commit="0123456789abcdef",
        config={"data": {"buckets": [1, 2]}},
    )
    return dataclasses.replace(record, **changes)
