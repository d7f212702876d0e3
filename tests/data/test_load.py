"""A config and a task name give datasets; nothing public in them depends on private rows."""

import dataclasses
import json
import subprocess
import sys
import time

import numpy as np
import pytest

from memarc.data import restaurants, reviews, splits, tokenize
from memarc.data.config import DataConfig
from memarc.data.dataset import padded_chunks
from memarc.data.load import from_rows, load, privacy_unit, task_of
from memarc.data.rows import Rows

REVIEWS = DataConfig(
    source="embedded",
    tokenizer="word_level",
    max_length=32,
    buckets=(16, 32),
    train_rows=70,
    dev_rows=30,
    rows_seed=3,
)
RESTAURANTS = dataclasses.replace(
    REVIEWS, separator="[SEP]", max_prompt=48, max_length=96, buckets=(64, 96)
)
BY_INPUT = {"unit": "input", "references_per_group": 2}
of_either_unit = pytest.mark.parametrize("unit", [{}, BY_INPUT], ids=str)

TRAIN = [("name[A]", "a is old"), ("name[B]", "b is new"), ("name[A]", "old a"), ("x[C]", "y")]
DEV = [("name[B]", "new b"), ("name[C]", "c"), ("name[B]", "b")]


@pytest.fixture(scope="module")
def word_folder(words, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("words"))
    tokenize.save_tokenizer(words, folder)
    return folder


@pytest.fixture(scope="module")
def letter_folder(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("letters"))
    words = ["name", ":", "A", "B", "C", "a", "b", "c", "is", "old", "new", "x", "y"]
    tokenize.save_tokenizer(tokenize.word_level_tokenizer(words, end_token="[END]"), folder)
    return folder


@pytest.fixture
def write_e2e(tmp_path):
    """Writes ``e2e`` under a new root and returns the root."""

    def write(train, name="root"):
        folder = tmp_path / name / "e2e"
        folder.mkdir(parents=True)
        for file, rows in (("trainset", train), ("devset", DEV), ("testset_w_refs", DEV[:1])):
            text = "".join(f"{mr},{ref}\n" for mr, ref in [("mr", "ref"), *rows])
            (folder / f"{file}.csv").write_text(text)
        return str(tmp_path / name)

    return write


def labelled(root, tokenizer, **changes):
    config = DataConfig(tokenizer=tokenizer, max_length=12, buckets=(6, 12), root=root)
    return dataclasses.replace(config, **changes)


def written(root, tokenizer, **changes):
    config = DataConfig(
        tokenizer=tokenizer,
        separator="[SEP]",
        max_prompt=4,
        max_length=8,
        buckets=(6, 8),
        root=root,
    )
    return dataclasses.replace(config, **changes)


def tsv(count):
    kinds = ["bad food", "the view was superb", ""]
    lines = [f"{kinds[i % 3]} \t{i % 2}" for i in range(count)]
    return "\n".join(["sentence\tlabel", *lines, ""])


def in_lists(batch):
    return {name: array.tolist() for name, array in batch.items()}


def test_the_embedded_reviews_are_ready_for_training():
    loaded = load("reviews", REVIEWS)
    assert (loaded.num_examples, len(loaded.evals["dev"].dataset)) == (70, 30)
    assert loaded.evals["dev"].prompts is None
    assert (loaded.codec.info.pad_id, loaded.codec.info.vocab_size) == (0, 139)
    assert (loaded.buckets, loaded.privacy_unit) == ((16, 32), "one row")
    assert (loaded.train.labels.sum(), loaded.train.truncated_rows) == (35, 0)
    first = loaded.train.take(np.array([0]), 32)["input_ids"][0]
    assert first[0] == 1
    assert 2 in first


def test_the_embedded_restaurants_are_ready_for_training_and_decoding():
    loaded = load("restaurants", RESTAURANTS)
    assert (loaded.num_examples, list(loaded.evals)) == (70, ["dev"])
    end_id = loaded.codec.layout.end_id
    assert (loaded.codec.layout.separator_id, end_id) == (2, loaded.codec.info.vocab_size - 1)
    assert loaded.codec.info.pad_id == loaded.train.pad_id == end_id
    assert (loaded.buckets, loaded.privacy_unit) == ((64, 96), "one reference row")
    assert loaded.train.truncated_rows == 0
    dev, prompts = loaded.evals["dev"].dataset, loaded.evals["dev"].prompts
    assert (len(prompts.inputs), len(dev), prompts.tokens.shape) == (10, 30, (10, 48))
    assert [len(texts) for texts in prompts.references] == [3] * 10
    for i, ids in enumerate(dev.take(np.arange(30), 96)["input_ids"]):
        length = prompts.lengths[i // 3]
        assert ids[:length].tolist() == prompts.tokens[i // 3, :length].tolist()
        assert loaded.codec.decode(ids[length:]) == prompts.references[i // 3][i % 3]


@pytest.mark.parametrize(
    ("task", "grammar", "count"), [("reviews", reviews, 1000), ("restaurants", restaurants, 600)]
)
def test_each_grammar_has_its_own_number_of_held_out_rows(task, grammar, count):
    loaded = load(task, dataclasses.replace(REVIEWS, max_length=96, buckets=(), dev_rows=None))
    assert (len(loaded.evals["dev"].dataset), loaded.buckets) == (count, (96,))
    held_out = loaded.codec.dataset(grammar.dev_rows(count, 3))
    assert loaded.evals["dev"].dataset.fingerprint() == held_out.fingerprint()


def test_labelled_files_are_ready_for_training(write_sst2, word_folder):
    loaded = load("sst2", labelled(write_sst2(tsv(7)), word_folder))
    assert (loaded.num_examples, loaded.task.labels) == (7, (0, 1))
    assert list(loaded.evals) == ["dev"]
    assert loaded.train.lengths.tolist() == [4, 6, 2, 4, 6, 2, 4]
    assert loaded.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_written_files_are_ready_with_one_row_as_the_unit(write_e2e, letter_folder):
    loaded = load("e2e", written(write_e2e(TRAIN), letter_folder))
    assert loaded.num_examples == 4
    assert loaded.train.lengths.tolist() == [8, 8, 7, 6]
    assert loaded.train.take(np.array([2]), 8)["is_target"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 0]]
    prompts = loaded.evals["dev"].prompts
    assert prompts.inputs == ("name : B", "name : C")
    assert prompts.references == (("new b", "b"), ("c",))
    assert len(loaded.evals["test"].dataset) == 1


def test_written_files_are_ready_with_one_input_as_the_unit(write_e2e, letter_folder):
    loaded = load("e2e", written(write_e2e(TRAIN), letter_folder, **BY_INPUT))
    assert loaded.num_examples == 3
    assert loaded.privacy_unit == "one meaning representation with its first 2 references"
    batch = loaded.train.take(np.array([0, 2]), 8)
    assert batch["attention_mask"].sum(-1).tolist() == [[8, 7], [6, 0]]
    assert batch["is_target"].sum(-1).tolist() == [[4, 3], [2, 0]]
    assert (loaded.train.group, loaded.evals["dev"].dataset.group) == ((2,), ())


def test_triples_are_read_from_the_folder_of_their_task(tmp_path, letter_folder):
    record = {"tripleset": [["a", "is", "old"]], "annotations": [{"text": "a"}, {"text": "b"}]}
    (tmp_path / "webnlg2017").mkdir()
    for name in ("train", "dev"):
        (tmp_path / "webnlg2017" / f"{name}.json").write_text(json.dumps([record]))
    loaded = load("webnlg", written(str(tmp_path), letter_folder))
    assert loaded.num_examples == 2
    assert loaded.evals["dev"].prompts.inputs == ("a : is : old",)


def test_the_first_inputs_or_rows_of_each_evaluation_set_can_be_read_alone(
    write_e2e, letter_folder
):
    dev = load("e2e", written(write_e2e(TRAIN), letter_folder, eval_rows=1)).evals["dev"]
    assert (dev.prompts.inputs, dev.prompts.references) == (("name : B",), (("new b", "b"),))
    assert (len(dev.prompts.tokens), len(dev.dataset)) == (1, 2)
    whole, some = (load("reviews", dataclasses.replace(REVIEWS, eval_rows=n)) for n in (None, 4))
    assert (some.num_examples, len(some.evals["dev"].dataset)) == (70, 4)
    first = [split.evals["dev"].dataset.take(np.arange(4), 32) for split in (whole, some)]
    assert in_lists(first[0]) == in_lists(first[1])


def test_another_train_file_and_another_end_are_read_where_they_are_named(write_e2e, letter_folder):
    config = written(write_e2e(TRAIN), letter_folder, train_file="devset.csv", end="[CLS]")
    loaded = load("e2e", config)
    found = (loaded.num_examples, loaded.codec.layout.end_id, loaded.codec.info.pad_id)
    assert found == (3, 1, 1)


def test_the_paper_split_stands_beside_the_official_dev_set(write_sst2, word_folder, monkeypatch):
    monkeypatch.setattr(splits, "PAPER_TRAIN_ROWS", 11)
    monkeypatch.setattr(splits, "PAPER_VALIDATION_ROWS", 5)
    loaded = load("sst2", labelled(write_sst2(tsv(23)), word_folder, split="paper"))
    sizes = {name: len(given.dataset) for name, given in loaded.evals.items()}
    assert loaded.num_examples == 11
    assert sizes == {"validation": 5, "test": 7, "dev": 1}


def test_the_paper_split_does_not_mix_with_sets_of_the_same_names(word_folder, monkeypatch):
    monkeypatch.setattr(splits, "PAPER_TRAIN_ROWS", 2)
    monkeypatch.setattr(splits, "PAPER_VALIDATION_ROWS", 1)
    rows = Rows((["we"] * 5,), np.zeros(5, np.int32))
    config = DataConfig(
        source="memory", tokenizer=word_folder, labels=("no", "yes"), split="paper", max_length=9
    )
    task = task_of("classification", config)
    assert list(from_rows(config, task, rows, {"dev": rows}).evals) == ["validation", "test", "dev"]
    with pytest.raises(ValueError, match=r"cuts evaluation sets \['test'\] itself; rename the giv"):
        from_rows(config, task, rows, {"test": rows})


def test_the_paper_split_of_a_small_file_is_refused(write_sst2, word_folder):
    with pytest.raises(ValueError, match="has 23 rows; split='paper' needs at least 51001"):
        load("sst2", labelled(write_sst2(tsv(23)), word_folder, split="paper"))


@pytest.mark.checklist(31, 32)
def test_removing_one_row_removes_one_example_and_changes_nothing_else(tmp_path, word_folder):
    def loaded(lines):
        root = tmp_path / str(len(lines))
        (root / "sst2").mkdir(parents=True)
        text = "\n".join(["sentence\tlabel", *lines, ""])
        for name in ("train.tsv", "dev.tsv"):
            (root / "sst2" / name).write_text(text)
        return load("sst2", labelled(str(root), word_folder))

    # The row that goes is the longest, the only one with its label and its words.
    long = "never " * 20 + "tasty"
    lines = ["bad food\t0", f"{long}\t1", "the view\t0"]
    with_row, without = loaded(lines), loaded([lines[0], lines[2]])
    _check_all_but_one_are_equal(with_row, without, gone=1, length=12)


@pytest.mark.checklist(31, 32)
@of_either_unit
def test_removing_one_reference_or_input_removes_it_and_changes_nothing_else(
    write_e2e, letter_folder, unit
):
    # What goes is the longest, the only one with its input and its words.
    odd = (f"never[{'again ' * 9}]", "tasty " * 9)
    more = [TRAIN[0], odd, *TRAIN[1:]]
    with_it, without = (
        load("e2e", written(write_e2e(rows, str(len(rows))), letter_folder, **unit))
        for rows in (more, TRAIN)
    )
    _check_all_but_one_are_equal(with_it, without, gone=1, length=8)


def _check_all_but_one_are_equal(more, less, *, gone, length):
    """What is public is equal, and so are all examples but ``gone``."""
    assert more.codec.info == less.codec.info
    assert more.codec.layout == less.codec.layout
    assert (more.task, more.privacy_unit) == (less.task, less.privacy_unit)
    assert more.buckets == less.buckets
    assert more.train.max_length == less.train.max_length
    assert more.num_examples == less.num_examples + 1
    numbers = np.arange(less.num_examples)
    kept = more.train.take(np.where(numbers < gone, numbers, numbers + 1), length)
    assert in_lists(kept) == in_lists(less.train.take(numbers, length))


@of_either_unit
def test_chunks_of_either_unit_hold_every_example_once(unit):
    loaded = load("restaurants", dataclasses.replace(RESTAURANTS, **unit))
    drawn, seen = np.arange(loaded.num_examples), 0
    for length, batch, is_padding in padded_chunks(drawn, loaded.train, loaded.buckets, 16):
        assert {array.shape for array in batch.values()} == {(16, *loaded.train.group, length)}
        seen += int((~is_padding).sum())
    assert seen == loaded.num_examples


def test_lists_give_the_datasets_of_the_file_that_holds_the_same(
    write_sst2, write_e2e, word_folder, letter_folder
):
    config = labelled(write_sst2(tsv(7)), word_folder)
    kinds = ["bad food", "the view was superb", ""]
    train = Rows(([kinds[i % 3] for i in range(7)],), np.arange(7, dtype=np.int32) % 2)
    lists = dataclasses.replace(config, source="memory", root=None, labels=("no", "yes"))
    task = task_of("classification", lists)
    given = from_rows(lists, task, train, {"held_out": train})
    assert given.task.labels == ("no", "yes") and given.privacy_unit == "one row"
    assert given.train.fingerprint() == load("sst2", config).train.fingerprint()
    assert given.evals["held_out"].dataset.fingerprint() == given.train.fingerprint()

    config = written(write_e2e(TRAIN, "texts"), letter_folder, **BY_INPUT)
    inputs = [mr.replace("[", " : ").removesuffix("]") for mr, _ in TRAIN]
    train = Rows((inputs, [text for _, text in TRAIN]), None)
    lists = dataclasses.replace(config, source="memory", root=None)
    given = from_rows(lists, task_of("generation", lists), train, {})
    assert given.privacy_unit == "one input with its first 2 references"
    assert given.train.fingerprint() == load("e2e", config).train.fingerprint()
    assert given.evals == {}


def test_lists_of_pairs_are_classified_too(word_folder):
    config = DataConfig(
        source="memory", tokenizer=word_folder, max_length=12, labels=("no", "maybe", "yes")
    )
    rows = Rows((["bad food", "we"], ["the view", "the food"]), np.array([2, 0], np.int32))
    loaded = from_rows(config, task_of("classification", config), rows, {"dev": rows})
    batch = loaded.train.take(np.arange(2), 12)
    assert batch["token_type_ids"].sum(1).tolist() == [3, 3]
    assert batch["labels"].tolist() == [2, 0]


@pytest.mark.checklist("32b", 31, 32)
def test_removing_a_person_removes_one_example_and_changes_nothing_else(letter_folder):
    config = DataConfig(
        source="memory", tokenizer=letter_folder, max_length=12, user="who", rows_per_user=2
    )
    task = task_of("generation", config)
    odd = ("never " * 9, "tasty " * 9)  # The longest, and the only one with its words.
    pairs = [("a", "b"), odd, ("b", "c"), ("a", "b"), ("c", "new"), ("b", "old")]
    users = ["p", "q", "q", "q", "r", "p"]
    rows = Rows(tuple(map(list, zip(*pairs, strict=True))), None, users)
    more = from_rows(config, task, rows, {})
    less = from_rows(config, task, rows.take(np.array([0, 4, 5])), {})
    assert more.privacy_unit == "one person with all rows of theirs, of which up to 2 are used"
    assert more.train.group == (2,) and more.num_examples == 3
    _check_all_but_one_are_equal(more, less, gone=1, length=12)
    shuffled = from_rows(config, task, rows.take(np.array([5, 1, 3, 4, 0, 2])), {})
    assert shuffled.train.fingerprint() == more.train.fingerprint()  # People stand as before.
    assert shuffled.rows_hash == more.rows_hash


def test_pairs_of_people_have_a_label_each(word_folder):
    config = DataConfig(
        source="memory",
        tokenizer=word_folder,
        max_length=12,
        labels=("no", "maybe", "yes"),
        user="who",
        rows_per_user=3,
    )
    texts = (["bad food", "we", "we"], ["the view", "the food", "i"])
    rows = Rows(texts, np.array([2, 0, 1], np.int32), ["x", "y", "x"])
    loaded = from_rows(config, task_of("classification", config), rows, {"dev": rows})
    batch = loaded.train.take(np.arange(2), 12)
    assert sorted(batch["labels"][0].tolist()) == [0, 1, 2]  # One is absent, and 0.
    assert batch["labels"][1].tolist() == [0, 0, 0]
    assert batch["token_type_ids"].sum(-1).astype(bool).sum(-1).tolist() == [2, 1]
    assert loaded.evals["dev"].dataset.group == () and len(loaded.evals["dev"].dataset) == 3


@pytest.mark.parametrize("users", [None, ["x", "y"]])
def test_names_of_people_and_their_column_go_together(word_folder, users):
    given = {} if users else {"user": "who", "rows_per_user": 1}
    config = DataConfig(source="memory", tokenizer=word_folder, labels=("a", "b"), **given)
    rows = Rows((["a", "b"],), np.array([0, 1], np.int32), users)
    state = "people" if users else "no people"
    with pytest.raises(ValueError, match=f"rows name {state}, and user is {config.user!r}; give b"):
        from_rows(config, task_of("classification", config), rows, {})


ONE, TWO = Rows((["a", "b"],), np.array([0, 1], np.int32)), Rows((["a"], ["b"]), None)


@pytest.mark.parametrize(
    ("task", "train", "dev", "message"),
    [
        ("generation", TWO, Rows((["a"],), None), "'dev' have 1 columns, those of 'train' 2"),
        ("generation", Rows((["a"],), None), None, "'train' have 1 columns.* has input, target"),
        ("generation", Rows((["a"], ["b"]), ONE.labels[:1]), None, "have labels; .* is generation"),
        ("classification", ONE, Rows((["a"], ["b"]), ONE.labels[:1]), "2 columns, those of 'trai"),
        ("classification", Rows((["a"],) * 3, ONE.labels[:1]), None, "'train' have 3 columns"),
        ("classification", Rows((["a"],), None), None, "have no labels; task classification is"),
        ("classification", ONE, Rows((["a"],), np.array([2])), r"'dev' run from 2 to 2; .*0 to 1"),
        ("classification", Rows((["a"],), np.array([-1])), None, "'train' run from -1 to -1"),
        ("classification", ONE, Rows(([],), ONE.labels[:0]), "set 'dev' of .* has no row; get a"),
        ("generation", TWO, Rows(([], []), None), "set 'dev' of task generation has no row"),
    ],
)
def test_rows_that_do_not_fit_the_task_are_refused(word_folder, task, train, dev, message):
    labels = ("no", "yes") if task == "classification" else ()
    config = DataConfig(source="memory", tokenizer=word_folder, labels=labels, max_length=9)
    with pytest.raises(ValueError, match=message):
        from_rows(config, task_of(task, config), train, {} if dev is None else {"dev": dev})


@pytest.mark.parametrize(
    ("task", "config", "message"),
    [
        ("sts", REVIEWS, "Unknown task 'sts'; choose one of sst2, .*, generation"),
        ("sst2", REVIEWS, "sst2 does not come from source 'embedded'"),
        ("restaurants", dataclasses.replace(RESTAURANTS, split="paper"), "split is 'paper'"),
        ("generation", DataConfig(source="memory"), "give them to load.from_rows"),
    ],
)
def test_what_cannot_be_read_is_refused(task, config, message):
    with pytest.raises(ValueError, match=message):
        load(task, config)


def test_an_evaluation_file_without_rows_is_refused(write_sst2, word_folder):
    root = write_sst2(tsv(3), dev="sentence\tlabel\n")
    with pytest.raises(ValueError, match="evaluation set 'dev' of task sst2 has no row"):
        load("sst2", labelled(root, word_folder))


def test_a_missing_train_file_says_where_it_comes_from(tmp_path, letter_folder):
    with pytest.raises(ValueError, match="which does not exist") as caught:
        load("e2e", written(str(tmp_path), letter_folder))
    assert "trainset.csv or trainset.csv.gz of task e2e in " in str(caught.value)
    assert "get them from github.com/tuetschek/e2e-dataset." in str(caught.value)


def test_darts_train_file_is_asked_for_by_its_name_and_origin(shared, letter_folder):
    with pytest.raises(ValueError, match=r"dart-v1\.1\.1-full-train\.json\.gz of task dart") as e:
        load("dart", written(str(shared / "data"), letter_folder))
    assert "Yale-LILY/dart, folder data/v1.1.1" in str(e.value)
    assert "WebNLG's files are another task, webnlg, and do not stand for DART's" in str(e.value)


def test_the_unit_of_privacy_is_stated_without_loading_anything():
    config = DataConfig(root="r")
    assert privacy_unit(task_of("sst2", config), config) == "one row"
    assert privacy_unit(task_of("e2e", config), config) == "one reference row"


def test_importing_the_package_does_not_import_slow_libraries():
    code = (
        "import sys, memarc.data.load; "
        "print([n for n in ('transformers', 'tensorflow_datasets', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sst2_loads_and_tokenizes_in_seconds(shared):
    start = time.perf_counter()
    config = DataConfig(
        tokenizer=str(shared / "tokenizers" / "bert-base-uncased"),
        max_length=64,
        buckets=(32, 64),
        root=str(shared / "data"),
    )
    loaded = load("sst2", config)
    assert (loaded.num_examples, len(loaded.evals["dev"].dataset)) == (67_349, 872)
    assert loaded.train.truncated_rows == 4
    assert time.perf_counter() - start < 60  # About 4 s on one idle core.


@pytest.mark.parametrize(
    ("task", "evals"),
    [("qnli", {"dev": 5463}), ("mnli", {"matched": 9815, "mismatched": 9832})],
)
def test_pair_tasks_load_from_a_named_train_file(shared, task, evals):
    config = DataConfig(
        tokenizer=str(shared / "tokenizers" / "roberta"),
        root=str(shared / "data"),
        train_file="train_9k.tsv",
    )
    loaded = load(task, config)
    assert (loaded.num_examples, loaded.buckets) == (8_999, (128,))
    assert {name: len(given.dataset) for name, given in loaded.evals.items()} == evals


@pytest.mark.parametrize(
    ("task", "train_file", "unit", "examples", "evals"),
    [
        ("e2e", "devset.csv", "row", 4_672, {"dev": (547, 4_672), "test": (630, 4_693)}),
        ("webnlg", None, "input", 6_893, {"dev": (871, 2_268)}),
    ],
)
def test_published_files_load_with_gpt2s_tokens(shared, task, train_file, unit, examples, evals):
    config = DataConfig(
        tokenizer=str(shared / "tokenizers" / "gpt2"),
        max_length=256,
        unit=unit,
        references_per_group=8 if unit == "input" else None,
        root=str(shared / "data"),
        train_file=train_file,
    )
    loaded = load(task, config)
    assert loaded.num_examples == examples
    found = {
        name: (len(given.prompts.inputs), len(given.dataset))
        for name, given in loaded.evals.items()
    }
    assert found == evals
    layout = loaded.codec.layout
    assert layout.separator_id == layout.end_id == loaded.codec.info.pad_id == 50_256
    dev, prompts = loaded.evals["dev"].dataset, loaded.evals["dev"].prompts
    target = dev.take(np.array([0]), 256)["input_ids"][0, prompts.lengths[0] :]
    assert loaded.codec.decode(target) == prompts.references[0][0]
