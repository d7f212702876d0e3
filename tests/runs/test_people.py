"""A person as the unit: what is planned, promised and written follows from people, not rows."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest

import memarc
from configs import own
from memarc.data import reviews, tokenize
from memarc.data.rows import Rows
from memarc.report import card
from memarc.runs import audit, run, statement
from memarc.runs.assemble import assemble_rows
from memarc.runs.sections import LedgerConfig, ModelSource
from memarc.runs.settings import Settings
from memarc.runs.train import open_ledger

PEOPLE, KEPT = 12, 3
PRIVACY = memarc.PrivacyConfig(
    epsilon=8.0,
    delta=1e-2,
    expected_batch_size=4,
    engine="ghost",
    microbatch_size=2,
    physical_batch_size=4,
)
NAMES = ("bad", "good")
UNIT = "one person with all rows of theirs, of which up to 3 are used"


@pytest.fixture(scope="module")
def rows():
    """(texts, labels as names, people): 40 reviews, of person i about as many as i."""
    made = reviews.train_rows(40, 3)
    users = [f"zq8person{i}" for i in range(PEOPLE)]
    users += np.random.default_rng(0).choice(users[5:], 40 - PEOPLE).tolist()
    return list(made.columns[0]), [NAMES[label] for label in made.labels], users


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenize.save_tokenizer(tokenize.word_level_tokenizer(reviews.vocabulary()), str(folder))
    return memarc.DataConfig(source="memory", tokenizer=str(folder), max_length=24)


@pytest.fixture
def choices(weights, data):
    """What every call here gives."""
    ours = {"weights": weights, "privacy": PRIVACY, "method": "head", "data": data, "seed": 5}
    return {**ours, "rows_per_user": KEPT}


@pytest.fixture
def as_file(rows, tmp_path):
    """The rows as a CSV file."""
    path = tmp_path / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "ward", "users"])
        writer.writerows(zip(*rows, strict=True))
    return str(path)


@pytest.mark.checklist("32b", 13, 34)
def test_lists_and_a_file_with_people_are_one_run_planned_over_people(
    rows, choices, as_file, weights, tmp_path
):
    texts, labels, users = rows
    dev = (texts[:7], labels[:7])
    tuned = memarc.fit_classifier(
        texts, labels, users=users, names=NAMES, folder=tmp_path / "out", dev=dev, **choices
    )
    record = tuned.record
    assert (record.unit, record.steps, record.expected_batch_size) == (UNIT, 3, 4)
    assert record.sampling_rate == 4 / PEOPLE
    right = sum(x == y for x, y in zip(tuned.predict(texts[:7]), labels[:7], strict=True))
    assert record.scores["dev_accuracy"] == right / 7  # Row by row.

    left = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not [path for path, content in left.items() if b"zq8person" in content]
    first = json.loads((tmp_path / "out" / "ledger.jsonl").read_text().splitlines()[0])
    assert first["unit"] == "person named by users"
    _check_that_no_run_on_rows_spends_from(tmp_path / "out", rows, choices)

    made = statement.make(tmp_path / "out")
    assert (made["promise"]["unit"], made["promise"]["most_rows_of_a_unit"]) == (UNIT, KEPT)
    assert made["mechanism"]["num_examples"] == PEOPLE
    assert "mean gradient" in made["mechanism"]["an_example_is"]
    assert not [text for text in made["not_covered"] if text.startswith("several rows of one")]
    shown = card.text(record, library="peft", base="b", opens="")
    assert f"| unit | {UNIT} |" in shown and "several rows of one person" not in shown
    alone = dataclasses.replace(record, config={"data": {}})
    assert "several rows of one person" in card.text(alone, library="peft", base="b", opens="")

    config = own.get_config()
    config.method, config.seed, config.model.weights = "head", 5, weights
    config.data.update(train=as_file, text="note", label="ward", labels="bad,good", max_length=24)
    config.data.update(user="users", rows_per_user=KEPT, tokenizer=choices["data"].tokenizer)
    config.privacy.update(dataclasses.asdict(PRIVACY))
    run.run_all(config.to_dict(), tmp_path / "file")
    found = [memarc.load(tmp_path / x).trainable for x in ("out", "file")]
    jax.tree.map(np.testing.assert_array_equal, *found)


def _check_that_no_run_on_rows_spends_from(folder, rows, choices):
    """A run on the same rows, each a unit, is refused by a ledger of people."""
    texts, labels, _ = rows
    settings = Settings(
        "classification",
        dataclasses.replace(choices["data"], labels=NAMES),
        ModelSource(choices["weights"]),
        PRIVACY,
        method="head",
        ledger=LedgerConfig(str(folder)),
    )
    places = np.array([NAMES.index(label) for label in labels], np.int32)
    alone = assemble_rows(settings, Rows((texts,), places), {})
    with pytest.raises(ValueError, match=r"units of 'person named by users'; the run's .* 'row'"):
        open_ledger(alone, folder / "none")


def test_numbers_are_learned_from_people(rows, choices, tmp_path):
    texts, labels, users = rows
    values = [1.0 + 3.0 * NAMES.index(label) for label in labels]
    tuned = memarc.fit_regressor(
        texts, values, users=users, range=(0, 5), folder=tmp_path, **choices
    )
    assert (tuned.record.unit, tuned.record.sampling_rate) == (UNIT, 4 / PEOPLE)
    assert all(0 <= value <= 5 for value in tuned.predict(texts[:3]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": ["x"] * 39}, r"Columns have \[40\] rows, labels 40, users 39; make them equal"),
        ({"users": ["x"] * 39 + [" "]}, "Some users are no names; give a text that is not empty"),
        ({"rows_per_user": None}, "rows_per_user is None; give a whole number from 1 up, as user"),
        ({"rows_per_user": 0}, "rows_per_user is 0; give a whole number from 1 up"),
        ({"users": None}, "rows_per_user is 3; user None does not read it"),
        (
            {"privacy": dataclasses.replace(PRIVACY, delta=1 / PEOPLE)},
            r"below 1 / number of examples, 0\.0833",
        ),
        (
            {"privacy": dataclasses.replace(PRIVACY, expected_batch_size=13)},
            "expected_batch_size is 13; give 1 to the number of examples, 12",
        ),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(rows, choices, tmp_path, changes, message):
    texts, labels, users = rows
    given = {**choices, "users": users, "names": NAMES, "folder": tmp_path / "out", **changes}
    with pytest.raises(ValueError, match=message):
        memarc.fit_classifier(texts, labels, **given)
    assert not (tmp_path / "out").exists()


def test_a_config_of_people_needs_their_names(rows, choices, tmp_path):
    texts, labels, _ = rows
    data = dataclasses.replace(choices["data"], user="who")
    with pytest.raises(ValueError, match="The train rows name no people, and user is 'who'"):
        memarc.fit_classifier(
            texts, labels, names=NAMES, folder=tmp_path / "out", **{**choices, "data": data}
        )


def test_an_audit_of_people_is_refused_before_anything_is_read(as_file, tmp_path):
    config = own.get_config()
    config.model.weights = "nowhere"
    config.data.update(train=as_file, text="note", label="ward", labels="bad,good")
    config.data.update(user="users", rows_per_user=KEPT)
    canaries = dict(gradient_canaries=60, text_canaries=60, confidence=0.9, claimed_epsilon=None)
    with pytest.raises(ValueError, match=r"data\.user is 'users'; canaries are rows"):
        audit.run({**config.to_dict(), "audit": canaries}, tmp_path / "out", lambda: False)
