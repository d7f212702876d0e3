"""From lists in memory to a private model, and the mistakes that such lists can hold."""

import dataclasses

import pytest

import memarc
from memarc.data import reviews, tokenize
from memarc.report import records

PRIVACY = memarc.PrivacyConfig(
    epsilon=8.0,
    delta=1e-3,
    expected_batch_size=20,
    engine="vmap",
    microbatch_size=4,
    physical_batch_size=8,
)
NAMES = ("bad", "good")


@pytest.fixture(scope="module")
def rows():
    """(texts, labels as names) of 60 reviews."""
    made = reviews.train_rows(60, 3)
    return list(made.columns[0]), [NAMES[label] for label in made.labels]


@pytest.fixture(scope="module")
def choices(weights, tmp_path_factory):
    """What every call here gives."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenize.save_tokenizer(tokenize.word_level_tokenizer(reviews.vocabulary()), str(folder))
    data = memarc.DataConfig(tokenizer=str(folder), max_length=24)
    return {"weights": weights, "privacy": PRIVACY, "method": "head", "data": data}


@pytest.mark.checklist(39)
def test_lists_become_a_model_whose_folder_says_the_same(rows, choices, tmp_path, capfd, caplog):
    """And nothing that a run leaves behind or says spells a private row."""
    texts, labels = rows
    planted = [f"zq8planted{i} {text}" for i, text in enumerate(texts)]
    tuned = memarc.fit_classifier(
        planted, labels, names=NAMES, folder=tmp_path, dev=(texts, labels), **choices
    )
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = "".join(capfd.readouterr()) + caplog.text
    assert {"record.json", "log.jsonl", "ledger.jsonl"} <= {path.name for path in left}
    assert not [path for path, content in left.items() if b"zq8planted" in content]
    assert "zq8planted" not in said + " ".join(map(str, left))
    assert tuned.labels == NAMES and set(tuned.predict(texts)) <= set(NAMES)
    right = sum(x == y for x, y in zip(tuned.predict(texts), labels, strict=True))
    assert tuned.record.scores == {"dev_accuracy": right / 60, "dev_undefined": 0.0}
    assert tuned.record.config["data"]["labels"] == list(NAMES)
    assert records.read(tmp_path / "record.json") == tuned.record
    again = memarc.fit_classifier(
        planted, labels, names=NAMES, folder=tmp_path, dev=(texts, labels), **choices
    )
    assert again.record == tuned.record  # A finished run is given back.
    with pytest.raises(ValueError, match="has not seen these rows"):
        memarc.fit_classifier(
            [*planted[1:], "bad"], labels, names=NAMES, folder=tmp_path, **choices
        )


def test_pairs_of_texts_need_no_dev_set(rows, choices, tmp_path):
    texts, labels = rows
    pairs = [(text, "the food was great") for text in texts]
    data = dataclasses.replace(choices["data"], max_length=32)
    with pytest.raises(ValueError, match="writes 2 token types; the backbone has 1"):
        memarc.fit_classifier(
            pairs, labels, names=NAMES, folder=tmp_path, **{**choices, "data": data}
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"names": ("bad", "fair")},
            r"are none of the declared names \['bad', 'fair'\]",
        ),
        ({"names": ("bad",)}, r"labels is \('bad',\); declare all labels"),
        ({"method": "prefix"}, "Unknown method 'prefix'"),
        ({"options": {"rank": 3}}, r"'head' has no option \['rank'\]"),
        ({"decoding": memarc.PrivacyConfig(1.0, 1e-5)}, "decoding is"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(rows, choices, tmp_path, changes, message):
    texts, labels = rows
    given = {**choices, "names": NAMES, "folder": tmp_path / "out", **changes}
    with pytest.raises(ValueError, match=message):
        memarc.fit_classifier(texts, labels, **given)
    assert not (tmp_path / "out").exists()


def test_texts_of_several_forms_are_refused(choices, tmp_path):
    given = {**choices, "names": NAMES, "folder": tmp_path / "out"}
    with pytest.raises(ValueError, match="Texts are of several forms; give one text a row"):
        memarc.fit_classifier(["a", ("b", "c")], ["bad", "good"], **given)


def test_a_name_that_is_not_there_is_told():
    with pytest.raises(AttributeError, match="memarc has no 'fit'; its names are"):
        memarc.fit  # noqa: B018
    assert "load" in dir(memarc)
