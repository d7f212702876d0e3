"""A config and a task name give datasets; nothing public in them depends on private rows."""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest

from memarc.data import splits
from memarc.data.load import DataConfig, load

EMBEDDED = {
    "source": "embedded",
    "split": "official",
    "tokenizer": "word_level",
    "max_length": 32,
    "buckets": (16, 32),
    "reviews_train_rows": 70,
    "reviews_dev_rows": 30,
    "reviews_seed": 3,
}


@pytest.fixture(scope="module")
def word_folder(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    words.save_pretrained(folder)
    return str(folder)


def glue(root, tokenizer, **changes):
    config = DataConfig(
        source="glue",
        split="official",
        tokenizer=tokenizer,
        max_length=12,
        buckets=(6, 12),
        root=root,
    )
    return dataclasses.replace(config, **changes)


def tsv(count):
    kinds = ["bad food", "the view was superb", ""]
    lines = [f"{kinds[i % 3]} \t{i % 2}" for i in range(count)]
    return "\n".join(["sentence\tlabel", *lines, ""])


def test_the_embedded_task_is_ready_for_training():
    loaded = load("reviews", DataConfig(**EMBEDDED))
    assert (loaded.num_examples, len(loaded.evals["dev"]), loaded.num_labels) == (70, 30, 2)
    assert (loaded.tokenizer.pad_id, loaded.tokenizer.vocab_size) == (0, 139)
    assert loaded.buckets == (16, 32)
    assert loaded.train.labels.sum() == 35
    assert loaded.train.truncated_rows == loaded.train.duplicate_rows == 0
    first = loaded.train.take(np.array([0]), 32)["input_ids"][0]
    assert first[0] == 1
    assert 2 in first


def test_local_files_are_ready_for_training(write_sst2, word_folder):
    loaded = load("sst2", glue(write_sst2(tsv(7)), word_folder))
    assert (loaded.num_examples, loaded.num_labels) == (7, 2)
    assert list(loaded.evals) == ["dev"]
    assert loaded.train.lengths.tolist() == [4, 6, 2, 4, 6, 2, 4]
    assert loaded.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_the_paper_split_stands_beside_the_official_dev_set(write_sst2, word_folder, monkeypatch):
    monkeypatch.setattr(splits, "PAPER_TRAIN_ROWS", 11)
    monkeypatch.setattr(splits, "PAPER_VALIDATION_ROWS", 5)
    loaded = load("sst2", glue(write_sst2(tsv(23)), word_folder, split="paper"))
    sizes = {name: len(dataset) for name, dataset in loaded.evals.items()}
    assert loaded.num_examples == 11
    assert sizes == {"validation": 5, "test": 7, "dev": 1}


def test_the_paper_split_of_a_small_file_is_refused(write_sst2, word_folder):
    with pytest.raises(ValueError, match="has 23 rows; split='paper' needs at least 51001"):
        load("sst2", glue(write_sst2(tsv(23)), word_folder, split="paper"))


@pytest.mark.checklist(31, 32)
def test_removing_one_row_removes_one_example_and_changes_nothing_else(tmp_path, word_folder):
    def loaded(lines):
        root = tmp_path / str(len(lines))
        (root / "sst2").mkdir(parents=True)
        text = "\n".join(["sentence\tlabel", *lines, ""])
        for name in ("train.tsv", "dev.tsv"):
            (root / "sst2" / name).write_text(text)
        return load("sst2", glue(str(root), word_folder))

    # The row that goes is the longest, the only one with its label and its words.
    long = "never " * 20 + "tasty"
    lines = ["bad food\t0", f"{long}\t1", "the view\t0"]
    with_row, without = loaded(lines), loaded([lines[0], lines[2]])
    assert with_row.tokenizer == without.tokenizer
    assert with_row.task == without.task
    assert with_row.buckets == without.buckets
    assert with_row.num_labels == without.num_labels
    assert with_row.train.max_length == without.train.max_length
    assert with_row.num_examples == without.num_examples + 1
    kept, same = with_row.train.take(np.array([0, 2]), 12), without.train.take(np.arange(2), 12)
    assert {name: array.tolist() for name, array in kept.items()} == {
        name: array.tolist() for name, array in same.items()
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "disk"}, "'disk'; choose one of glue, tfds, tfds_download, embedded"),
        ({"split": "half"}, "'half'; choose one of official, paper"),
        ({"tokenizer": ""}, "tokenizer is ''"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": 32.0}, "max_length is 32.0"),
        ({"buckets": (16,)}, "ends with max_length = 32"),
        ({"root": "data"}, "root is 'data'; source 'embedded' reads none"),
        ({"source": "glue"}, "root is None; source 'glue' needs a folder"),
        ({"source": "tfds", "root": ""}, "root is ''; source 'tfds' needs a folder"),
        ({"train_file": "x.tsv"}, "train_file is 'x.tsv', source 'embedded'"),
        ({"source": "glue", "root": "r", "train_file": ""}, "train_file is ''"),
        ({"reviews_train_rows": 0}, "reviews_train_rows is 0"),
        ({"reviews_dev_rows": True}, "reviews_dev_rows is True"),
        ({"reviews_seed": -1}, "reviews_seed is -1"),
    ],
)
def test_each_bad_field_is_refused_at_construction(changes, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**{**EMBEDDED, **changes})


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("sts", {}, "Unknown task 'sts'"),
        ("sst2", {}, "sst2 does not come from source 'embedded'; choose glue or tfds or"),
        ("reviews", {"source": "glue", "root": "r"}, "choose embedded"),
        ("qqp", {"source": "glue", "root": "r"}, "needs a published tokenizer"),
    ],
)
def test_a_config_that_does_not_fit_the_task_is_refused(task, changes, message):
    with pytest.raises(ValueError, match=message):
        load(task, DataConfig(**{**EMBEDDED, **changes}))


def test_importing_the_package_does_not_import_slow_libraries():
    code = (
        "import sys, memarc.data.load; "
        "print([n for n in ('transformers', 'tensorflow_datasets', 'jax') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sst2_loads_and_tokenizes_in_seconds(shared):
    start = time.perf_counter()
    loaded = load(
        "sst2",
        DataConfig(
            source="glue",
            split="official",
            tokenizer=str(shared / "tokenizers" / "bert-base-uncased"),
            max_length=64,
            buckets=(32, 64),
            root=str(shared / "data"),
        ),
    )
    assert (loaded.num_examples, len(loaded.evals["dev"])) == (67_349, 872)
    assert loaded.train.truncated_rows == 4
    assert time.perf_counter() - start < 60  # About 4 s on one idle core.


@pytest.mark.parametrize(
    ("task", "evals"),
    [("qnli", {"dev": 5463}), ("mnli", {"matched": 9815, "mismatched": 9832})],
)
def test_pair_tasks_load_from_a_named_train_file(shared, task, evals):
    loaded = load(
        task,
        DataConfig(
            source="glue",
            split="official",
            tokenizer=str(shared / "tokenizers" / "roberta"),
            max_length=128,
            buckets=(128,),
            root=str(shared / "data"),
            train_file="train_9k.tsv",
        ),
    )
    assert loaded.num_examples == 8_999
    assert {name: len(dataset) for name, dataset in loaded.evals.items()} == evals
