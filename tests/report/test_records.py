"""Records survive the file; tables hold what records hold."""

import dataclasses
import json

import pytest

from memarc.report import records, tables


def example(**changes):
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
        memory={"backward_bytes_per_example": 2**20, "backward_bytes": 3 * 2**20},
        device="cpu",
        versions={"jax": "0"},
        commit="0123456789abcdef",
        config={"data": {"buckets": [1, 2]}},
    )
    return dataclasses.replace(record, **changes)


@pytest.mark.parametrize("epsilon", [8.0, float("inf")])
def test_a_record_comes_back_as_it_was_and_is_strict_json(tmp_path, epsilon):
    record = example(epsilon=epsilon)
    path = records.write(record, tmp_path)
    assert records.read(path) == record
    json.loads(path.read_text(), parse_constant=pytest.fail)  # No Infinity or NaN.
    assert [item.name for item in tmp_path.iterdir()] == ["record.json"]


def test_a_file_that_is_no_record_is_refused(tmp_path):
    path = records.write(example(), tmp_path)
    content = json.loads(path.read_text())
    del content["epsilon"]
    path.write_text(json.dumps({**content, "extra": 1}))
    with pytest.raises(ValueError, match=r"lacks \['epsilon'\] and has unknown \['extra'\]"):
        records.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        records.read(path)
    with pytest.raises(ValueError, match="cannot be read"):
        records.read(tmp_path / "absent")


def test_a_table_holds_one_row_a_record():
    text = tables.table([example(), example(method="side", epsilon=3.0)], tables.QUICK, "markdown")
    header, _, first, second = text.splitlines()
    assert "method" in header and "kept for backward" in header
    assert all(part in first for part in ("lora", "81.2", "inf", "1e-05", "1,234", "3.0 MiB", "61"))
    assert "3.000" in second and "side" in second


def test_unknown_columns_and_styles_are_named():
    with pytest.raises(ValueError, match=r"Unknown columns \['speed'\]"):
        tables.table([example()], ("speed",), "terminal")
    with pytest.raises(ValueError, match="Unknown style 'html'"):
        tables.table([example()], tables.QUICK, "html")


def test_the_headline_is_the_first_score():
    assert example().headline == 0.8123


def test_outside_a_repository_the_commit_is_unknown(tmp_path):
    assert records.commit(tmp_path) == "unknown"
