"""Rows of canaries: known again by the model, of tokens as their kind says, and public."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import audit as audit_config
from memarc.batches import INPUT_IDS, IS_TARGET
from memarc.runs import canaries, canary_rows
from memarc.runs.assemble import assemble
from memarc.runs.canaries import Slots
from memarc.runs.parse import parse


@pytest.fixture(scope="module")
def writer():
    config = audit_config.get_config("generation")
    config.data.update(train_rows=40, dev_rows=9)
    config.privacy.update(expected_batch_size=20, noise_multiplier=1.0, epsilon=1e3)
    del config["audit"]
    (settings,) = parse(config.to_dict())
    return assemble(settings)


@pytest.fixture(scope="module")
def dataset(writer):
    return canary_rows.with_canaries(writer, SLOTS)


SLOTS = Slots(40, {"random": 3, "unused": 5, "sampled": 4, "gradient": 7})


def row(dataset, number):
    taken = dataset.take(np.array([number]), dataset.max_length)
    size = int(taken["attention_mask"].sum())
    return taken[INPUT_IDS][0, :size], taken[IS_TARGET][0, :size]


def test_kinds_stand_one_after_the_other():
    assert SLOTS.total == 59
    assert SLOTS.of("random").tolist() == [40, 41, 42]
    assert SLOTS.of("gradient").tolist() == list(range(52, 59))
    present = SLOTS.is_present(9)
    assert present[:40].all() and 0 < present[40:].sum() < 19


def test_texts_are_what_their_kind_says(writer, dataset):
    assert len(dataset) == 59
    for number in range(40):
        for ours, its in zip(row(dataset, number), row(writer.splits.train, number), strict=True):
            np.testing.assert_array_equal(ours, its)
    unused = canary_rows.unused_ids(writer.codec)
    in_rows = np.unique(writer.splits.train.encoded.tokens[INPUT_IDS])
    assert len(unused) >= 2 and not set(unused) & set(in_rows.tolist())
    (given,) = (x.prompts for x in writer.splits.evals.values())
    prompts = {
        tuple(ids[:size].tolist()) for ids, size in zip(given.tokens, given.lengths, strict=True)
    }
    for kind in ("random", "unused", "sampled"):
        for number in SLOTS.of(kind):
            ids, marks = row(dataset, number)
            text = ids[marks == 1]
            assert 0 < len(text) <= 16 and (np.diff(marks) >= 0).all() and not marks[0]
            assert (np.isin(text, unused).all()) == (kind == "unused")
            assert tuple(ids[marks == 0].tolist()) in prompts


def test_the_model_knows_gradient_canaries_and_reads_other_rows_as_it_did(dataset):
    taken = dataset.take(np.arange(59), dataset.max_length)
    number, plain = canaries._number_of(jax.tree.map(jax.numpy.asarray, taken), 0)
    assert (np.asarray(number[:52]) < 0).all()
    np.testing.assert_array_equal(number[52:], np.arange(7))
    np.testing.assert_array_equal(plain[IS_TARGET][:52], taken[IS_TARGET][:52])
    assert int(plain[IS_TARGET].max()) == 1


def test_what_an_audit_cannot_hold_is_refused(writer):
    few = dataclasses.replace(writer.codec.info, special_ids=())
    codec = dataclasses.replace(writer.codec, info=few)
    with pytest.raises(ValueError, match=r"has 0 tokens that no row holds"):
        canary_rows.with_canaries(dataclasses.replace(writer, codec=codec), SLOTS)
    members = dataclasses.replace(writer.splits.train, members=np.arange(40).reshape(20, 2))
    splits = dataclasses.replace(writer.splits, train=members)
    with pytest.raises(ValueError, match="one row an example"):
        canary_rows.with_canaries(dataclasses.replace(writer, splits=splits), SLOTS)
    classifier = audit_config.get_config("smoke")
    del classifier["audit"]
    (settings,) = parse(classifier.to_dict())
    with pytest.raises(ValueError, match="classification does not write"):
        canary_rows.with_canaries(assemble(settings), Slots(200, {"sampled": 50, "gradient": 50}))
