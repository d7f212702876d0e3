"""From files and a config, or a command line, to a private model and what it says of new rows."""

import csv
import json

import jax
import numpy as np
import pytest

import memarc
from configs import own
from memarc.data import reviews, tokenize
from memarc.evaluation import scores
from memarc.models import backbone, pretrained
from memarc.models.families.known import make_config
from memarc.runs import audit, predictions, run
from memarc.runs.parse import parse
from memarc.training import export
from tests import commands
from tests.data.test_chat import TEMPLATE


@pytest.fixture(scope="module")
def files(tmp_path_factory, weights):
    """Train and dev files with two texts, a label and a number, beside a tokenizer."""
    folder = tmp_path_factory.mktemp("files")
    tokenize.save_tokenizer(
        tokenize.word_level_tokenizer(reviews.vocabulary()), str(folder / "tokenizer")
    )
    for name, made in {"train": reviews.train_rows(60, 3), "dev": reviews.dev_rows(7, 3)}.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["ward", "note", "days"])
            for text, label in zip(made.columns[0], made.labels, strict=True):
                writer.writerow([("surgery", "cardiology")[label], text, 2 + 3 * label])
    return folder


@pytest.fixture
def config(files, weights):
    """Makes a config of a preset: three steps of 20 rows expected."""

    def config(preset="full", **data):
        config = own.get_config(preset)
        config.method = "head"
        config.model.weights = weights
        config.seed = 5
        config.data.update(
            train=str(files / "train.csv"),
            dev=str(files / "dev.csv"),
            text="note",
            tokenizer=str(files / "tokenizer"),
            max_length=24,
            **data,
        )
        config.privacy.update(delta=1e-3, engine="vmap", expected_batch_size=20)
        config.privacy.update(microbatch_size=4, physical_batch_size=8)
        return config

    return config


WARDS = {"label": "ward", "labels": "surgery,cardiology"}


def test_labels_are_learned_from_files_scored_and_given_to_new_rows(config, files, tmp_path):
    made = config(**WARDS, metrics="macro_f1,auc")
    (record,) = run.run_all(made.to_dict(), tmp_path / "out")
    assert list(record.scores) == ["dev_macro_f1", "dev_auc", "dev_undefined"]
    assert record.config["data"]["labels"] == ["surgery", "cardiology"]
    model = memarc.load(tmp_path / "out")
    (texts,) = predictions.inputs_of(model, str(files / "dev.csv"))
    odds = model.probabilities(texts)
    done = commands.run(
        "experiments.predict",
        f"--run={tmp_path / 'out'}",
        f"--input={files / 'dev.csv'}",
        f"--output={tmp_path / 'labels.csv'}",
    )
    assert done.returncode == 0 and "7 predictions written" in done.stderr, done.stderr
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == model.predict(texts)
    found = [float(row["probability of cardiology"]) for row in rows]
    np.testing.assert_allclose(found, odds[:, 1], rtol=1e-5)
    done = commands.run(
        "experiments.export", f"--run={tmp_path / 'out'}", f"--output={tmp_path / 'model'}"
    )
    assert done.returncode == 0, done.stderr
    stated = json.loads((tmp_path / "model" / "config.json").read_text())
    assert stated["id2label"] == {"0": "surgery", "1": "cardiology"}
    assert f"| epsilon | {record.epsilon:.6g}" in (tmp_path / "model" / "README.md").read_text()


def test_a_row_that_leaves_the_range_has_no_prediction(config, tmp_path):
    run.run_all(config(**WARDS).to_dict(), tmp_path)
    model = memarc.load(tmp_path)
    texts = ["the food was great"]
    (said,) = predictions.predict(model, (texts,))
    assert said["label"] in model.labels and predictions.undefined([said]) == []
    model.trainable["head"]["bias"] = model.trainable["head"]["bias"] * np.float32("nan")
    (said,) = predictions.predict(model, (texts,))
    assert said == {"label": None, "probabilities": None} and predictions.undefined([said]) == [1]
    with pytest.raises(ValueError, match=r"left its range for 1 of 1 texts.*number 0 \(from 0\)"):
        model.predict(texts)


def test_numbers_of_a_declared_range_come_back_in_their_unit(config, files, weights, tmp_path):
    made = config("regression", label="days", range="0,5")
    (record,) = run.run_all(made.to_dict(), tmp_path / "out")
    names = ["pearson", "spearman", "rmse", "undefined"]
    assert list(record.scores) == [f"dev_{name}" for name in names]
    model = memarc.load(tmp_path / "out")
    train, dev = reviews.train_rows(60, 3), reviews.dev_rows(7, 3)
    found = np.asarray(model.predict(dev.columns[0]))
    assert ((found >= 0) & (found <= 5)).all()
    wanted = 2.0 + 3.0 * dev.labels
    assert record.scores["dev_rmse"] == pytest.approx(np.sqrt(np.mean((found - wanted) ** 2)))
    settings = parse(made.to_dict())[0]
    again = memarc.fit_regressor(
        train.columns[0],
        (2.0 + 3.0 * train.labels).tolist(),
        range=(0, 5),
        dev=(dev.columns[0], wanted.tolist()),
        weights=weights,
        folder=tmp_path / "lists",
        privacy=settings.privacy,
        method="head",
        seed=5,
        data=memarc.DataConfig(tokenizer=str(files / "tokenizer"), max_length=24),
    )
    assert again.record.scores == record.scores  # Lists and files are the same run.
    with pytest.raises(ValueError, match=r"no numbers from 0 to 4; declare a range"):
        memarc.fit_regressor(
            ["a"], [5.0], range=(0, 4), weights=weights, folder=tmp_path, privacy=settings.privacy
        )


@pytest.fixture(scope="module")
def chatter(tmp_path_factory):
    """A folder of a tiny random GPT-2 with a tokenizer that has a chat template."""
    folder = tmp_path_factory.mktemp("chatter")
    made = tokenize.train_tokenizer(["user assistant"], 280, end_token="<|im_end|>")
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.chat_template = TEMPLATE
    tokenize.save_tokenizer(made, str(folder))
    config = make_config(
        "gpt2",
        vocab_size=len(made),
        width=8,
        layers=1,
        heads=2,
        feed_forward=12,
        max_positions=60,
        norm_epsilon=1e-5,
        activation="gelu_new",
        dtype="float32",
    )
    params = jax.jit(backbone.init, static_argnums=0)(config, jax.random.key(0))
    pretrained.save(folder, config, jax.device_get(params))
    return str(folder)


def test_conversations_are_learned_from_files_and_lists_alike(chatter, tmp_path):
    asked = [[{"role": "user", "content": f"Is {i} odd?"}] for i in range(30)]
    said = ["Yes." if i % 2 else "No." for i in range(30)]
    with (tmp_path / "talks.jsonl").open("w", encoding="utf-8") as file:
        for i, (talk, text) in enumerate(zip(asked, said, strict=True)):
            turns = [*talk, {"role": "assistant", "content": text}]
            file.write(json.dumps({"talk": turns, "who": i % 20}) + "\n")
    config = own.get_config("generation")
    config.method, config.seed, config.model.weights = "lora", 3, chatter
    config.data.update(train=str(tmp_path / "talks.jsonl"), messages="talk", max_length=52)
    config.data.update(dev=str(tmp_path / "talks.jsonl"), metrics="perplexity", max_prompt=50)
    config.data.update(user="who", rows_per_user=2)
    config.decoding.max_tokens = 5
    config.privacy.update(delta=1e-3, engine="vmap", expected_batch_size=10)
    config.privacy.update(microbatch_size=8, physical_batch_size=8)
    (record,) = run.run_all(config.to_dict(), tmp_path / "out")
    assert list(record.scores) == ["dev_perplexity", "dev_undefined"]  # Nothing was written.
    (settings,) = parse(config.to_dict())
    choices = {"method": "lora", "seed": 3, "decoding": settings.decoding}
    data = memarc.DataConfig(max_length=52, max_prompt=50, metrics=("perplexity",))
    model = memarc.fit_writer(
        asked,
        said,
        dev=(asked, said),
        weights=chatter,
        folder=tmp_path / "lists",
        privacy=settings.privacy,
        data=data,
        users=[i % 20 for i in range(30)],
        rows_per_user=2,
        **choices,
    )
    assert model.record.scores == record.scores
    assert model.record.sampling_rate == record.sampling_rate == 10 / 20  # Of 20 people.
    (text,) = model.write(asked[:1])
    assert model.write([json.dumps(asked[0])]) == [text] and "<|im" not in text
    with pytest.raises(ValueError, match="This model reads conversations; give lists"):
        model.write(["Is 3 odd?"])
    model = memarc.load(tmp_path / "out")
    (prompts,) = predictions.inputs_of(model, str(tmp_path / "talks.jsonl"))
    assert json.loads(prompts[0]) == asked[0]  # Without the answer that is there.


def test_a_command_line_alone_says_everything(files, weights, tmp_path):
    given = {
        "data.train": f"{files / 'train.csv'},{files / 'dev.csv'}",
        "data.text": "note",
        "data.label": "ward",
        "data.labels": '"surgery, all",cardiology',
        "data.user": "days",
        "data.rows_per_user": 2,
        "data.tokenizer": files / "tokenizer",
        "model.weights": weights,
        "data.max_length": 24,
    }
    options = [f"--config.{name}={value}" for name, value in given.items()]
    done = commands.run(
        "experiments.run", "--config=configs/own.py", f"--workdir={tmp_path}", *options
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "none of the declared ['surgery, all', 'cardiology'] on line" in done.stderr


def test_the_resolved_config_is_shown_and_nothing_is_made(tmp_path):
    given = ("--config=configs/quickstart.py:smoke", "--config.privacy.epsilon=3", "--only=side")
    done = commands.run("experiments.run", f"--workdir={tmp_path / 'out'}", "--show", *given)
    (shown,) = json.loads(done.stdout).values()
    assert shown["privacy"]["epsilon"] == 3.0 and shown["method"] == "side"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", [x for x in own.PRESETS if x != "smoke"])
def test_a_preset_lacks_nothing_but_files_and_what_is_declared(preset):
    with pytest.raises(ValueError, match=r"(labels|range|train) is \(\); "):
        parse(own.get_config(preset).to_dict())


def test_a_field_that_is_misspelt_is_told_its_neighbour(config):
    plain = config(**WARDS).to_dict()
    plain["data"]["lables"] = plain["data"].pop("labels")
    with pytest.raises(ValueError, match=r"unknown fields \['lables'\].*did you mean labels\?"):
        parse(plain)


def test_a_dev_file_without_rows_is_found_before_training(config, files, tmp_path):
    (tmp_path / "empty.csv").write_text("ward,note\n", encoding="utf-8")
    made = config(**WARDS)
    made.data.dev = str(tmp_path / "empty.csv")
    with pytest.raises(ValueError, match="The evaluation set 'dev' of task classification has no"):
        run.run_all(made.to_dict(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def logged(folder, kind):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


@pytest.mark.checklist(33)
def test_public_rows_are_scored_while_it_trains_and_change_nothing(config, files, tmp_path):
    made = config(**WARDS)
    made.training.epochs = 4 / 3
    run.run_all(made.to_dict(), tmp_path / "without")
    made.data.update(validation=str(files / "train.csv"), validation_public=True)
    made.training.eval_every = 2
    (record,) = run.run_all(made.to_dict(), tmp_path / "with")
    names = ["accuracy", "undefined"]
    assert list(record.scores) == [f"{x}_{name}" for x in ("dev", "validation") for name in names]
    assert record.eval_rows == {"dev": 7, "validation": 60}
    found = logged(tmp_path / "with", "validation")
    assert [line["step"] for line in found] == [2, 4]
    assert found[-1]["validation_accuracy"] == record.scores["validation_accuracy"]
    first, second = (export.load(tmp_path / name)[0] for name in ("without", "with"))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert not logged(tmp_path / "without", "validation")


@pytest.mark.parametrize(
    ("data", "every", "told"),
    [
        ({"validation": "v.csv"}, 0, "validation_public is False.*if they are public"),
        ({}, 5, r"training\.eval_every is 5 and data\.validation \(\); name files of public rows"),
        ({}, -1, r"training\.eval_every is -1"),
    ],
)
def test_rows_are_scored_while_it_trains_only_if_they_are_declared_public(
    config, data, every, told
):
    made = config(**WARDS, **data)
    made.training.eval_every = every
    with pytest.raises(ValueError, match=told):
        parse(made.to_dict())


def test_scoring_that_fails_is_found_before_the_first_step(config, tmp_path, monkeypatch):
    """Whatever is missing, such as a package that a score needs: nothing is spent for it."""

    def missing(labels, probabilities):
        raise ValueError(f"no package for {len(labels)} rows")

    monkeypatch.setitem(scores.SCORES, "auc", missing)
    with pytest.raises(ValueError, match="no package for 4 rows"):  # The public ones.
        run.run_all(config(**WARDS, metrics="accuracy,auc").to_dict(), tmp_path / "out")
    assert not (tmp_path / "out" / "ledger.jsonl").exists()


def test_an_audit_of_numbers_is_refused_before_anything_is_read(config, tmp_path):
    plain = config("regression", label="days", range="0,5").to_dict()
    canaries = dict(gradient_canaries=60, random_canaries=60, confidence=0.9, claimed_epsilon=None)
    with pytest.raises(ValueError, match="'regression' is one of regression; an audit is of a cl"):
        audit.run({**plain, "audit": canaries}, tmp_path / "out", lambda: False)


def test_class_weights_that_clipping_would_undo_are_refused(config):
    made = config(**WARDS)
    made.head.class_weights = (1.0, 2.0)
    parse(made.to_dict())
    made.privacy.clipping = "automatic"
    with pytest.raises(ValueError, match=r"head\.class_weights has no effect"):
        parse(made.to_dict())


def test_records_of_texts_are_written_as_lines(tmp_path):
    said = [{"text": "é\n"}, {"text": "b"}]
    predictions.write(said, str(tmp_path / "a.jsonl"))
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(map(json.loads, lines)) == said
