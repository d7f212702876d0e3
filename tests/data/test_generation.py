"""A config and a task name give pairs as arrays; nothing public in them depends on private rows."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from memarc.data import tokenize
from memarc.data.dataset import padded_chunks
from memarc.data.generation import GenerationConfig, load

EMBEDDED = {
    "source": "embedded",
    "tokenizer": "word_level",
    "separator": "[SEP]",
    "max_prompt": 48,
    "max_length": 96,
    "buckets": (64, 96),
    "train_rows": 70,
    "dev_rows": 30,
    "rows_seed": 3,
}

TRAIN = [("name[A]", "a is old"), ("name[B]", "b is new"), ("name[A]", "old a"), ("x[C]", "y")]
DEV = [("name[B]", "new b"), ("name[C]", "c"), ("name[B]", "b")]


@pytest.fixture(scope="module")
def word_folder(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("words"))
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


def files(root, tokenizer, **changes):
    config = GenerationConfig(
        source="files",
        tokenizer=tokenizer,
        separator="[SEP]",
        max_prompt=4,
        max_length=8,
        buckets=(6, 8),
        root=root,
    )
    return dataclasses.replace(config, **changes)


def test_the_embedded_task_is_ready_for_training_and_decoding():
    loaded = load("restaurants", GenerationConfig(**EMBEDDED))
    assert (loaded.num_examples, list(loaded.evals)) == (70, ["dev"])
    assert (loaded.separator_id, loaded.end_id) == (2, loaded.tokenizer.vocab_size - 1)
    assert loaded.tokenizer.pad_id == loaded.train.pad_id == loaded.end_id
    assert (loaded.buckets, loaded.privacy_unit) == ((64, 96), "one reference row")
    assert loaded.train.truncated_rows == 0
    dev = loaded.evals["dev"]
    assert (len(dev.inputs), len(dev.dataset), dev.prompts.shape) == (10, 30, (10, 48))
    assert [len(texts) for texts in dev.references] == [3] * 10
    batch = dev.dataset.take(np.arange(30), 96)
    for i, (ids, is_target) in enumerate(zip(batch["input_ids"], batch["is_target"], strict=True)):
        length = dev.prompt_lengths[i // 3]
        assert ids[:length].tolist() == dev.prompts[i // 3, :length].tolist()
        assert ids[length - 1] == loaded.separator_id
        assert not is_target[:length].any() and is_target[length]
        assert loaded.decode(ids[length:]) == dev.references[i // 3][i % 3]


def test_local_files_are_ready_with_one_row_as_the_unit(write_e2e, word_folder):
    loaded = load("e2e", files(write_e2e(TRAIN), word_folder))
    assert loaded.num_examples == 4
    assert loaded.train.lengths.tolist() == [8, 8, 7, 6]
    assert loaded.train.take(np.array([2]), 8)["is_target"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 0]]
    dev = loaded.evals["dev"]
    assert dev.inputs == ("name : B", "name : C")
    assert dev.references == (("new b", "b"), ("c",))
    assert len(loaded.evals["test"].dataset) == 1


def test_local_files_are_ready_with_one_input_as_the_unit(write_e2e, word_folder):
    config = files(write_e2e(TRAIN), word_folder, unit="input", references_per_group=2)
    loaded = load("e2e", config)
    assert loaded.num_examples == 3
    assert loaded.privacy_unit == "one meaning representation with its first 2 references"
    batch = loaded.train.take(np.array([0, 2]), 8)
    assert batch["attention_mask"].sum(-1).tolist() == [[8, 7], [6, 0]]
    assert batch["is_target"].sum(-1).tolist() == [[4, 3], [2, 0]]
    assert loaded.evals["dev"].dataset.members.ndim == 1


def test_the_first_inputs_of_each_evaluation_set_can_be_read_alone(write_e2e, word_folder):
    evals = load("e2e", files(write_e2e(TRAIN), word_folder, eval_rows=1)).evals
    assert (evals["dev"].inputs, evals["dev"].references) == (("name : B",), (("new b", "b"),))
    assert (len(evals["dev"].prompts), len(evals["dev"].dataset)) == (1, 2)


def test_another_train_file_and_another_end_are_read_where_they_are_named(write_e2e, word_folder):
    config = files(write_e2e(TRAIN), word_folder, train_file="devset.csv", end="[CLS]")
    loaded = load("e2e", config)
    assert (loaded.num_examples, loaded.end_id, loaded.tokenizer.pad_id) == (3, 1, 1)


@pytest.mark.checklist(31, 32)
@pytest.mark.parametrize("unit", [{}, {"unit": "input", "references_per_group": 2}], ids=str)
def test_removing_one_example_removes_it_and_changes_nothing_else(write_e2e, word_folder, unit):
    # What goes is the longest, the only one with its input and its words.
    odd = (f"never[{'again ' * 9}]", "tasty " * 9)
    more = [TRAIN[0], odd, *TRAIN[1:]]
    with_it, without = (
        load("e2e", files(write_e2e(rows, str(len(rows))), word_folder, **unit))
        for rows in (more, TRAIN)
    )
    assert with_it.tokenizer == without.tokenizer
    assert with_it.privacy_unit == without.privacy_unit
    assert (with_it.separator_id, with_it.end_id) == (without.separator_id, without.end_id)
    assert with_it.num_examples == without.num_examples + 1
    numbers = np.arange(without.num_examples)
    kept = with_it.train.take(np.where(numbers == 0, 0, numbers + 1), 8)
    same = without.train.take(numbers, 8)
    assert {name: array.tolist() for name, array in kept.items()} == {
        name: array.tolist() for name, array in same.items()
    }


@pytest.mark.parametrize("unit", [{}, {"unit": "input", "references_per_group": 2}], ids=str)
def test_chunks_of_either_unit_hold_every_example_once(unit):
    loaded = load("restaurants", GenerationConfig(**EMBEDDED, **unit))
    drawn, seen = np.arange(loaded.num_examples), 0
    for length, batch, is_padding in padded_chunks(drawn, loaded.train, loaded.buckets, 16):
        shapes = {array.shape for array in batch.values()}
        assert shapes == {(16, *loaded.train.members.shape[1:], length)}
        seen += int((~is_padding).sum())
    assert seen == loaded.num_examples


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "glue"}, "'glue'; choose one of files, embedded"),
        ({"unit": "person"}, "'person'; choose one of row, input"),
        ({"tokenizer": ""}, "tokenizer is ''; give a folder, a hub name or 'word_level'"),
        ({"separator": None}, "separator is None; give a special token"),
        ({"max_prompt": 1}, "max_prompt is 1; give a whole number from 2 up"),
        ({"max_length": 96.0}, "max_length is 96.0"),
        ({"max_prompt": 96}, "max_length is 96, .* max_prompt = 96; leave room for a target"),
        ({"buckets": (64,)}, "ends with max_length = 96"),
        ({"train_rows": 0}, "train_rows is 0"),
        ({"dev_rows": True}, "dev_rows is True"),
        ({"rows_seed": -1}, "rows_seed is -1"),
        ({"eval_rows": 0}, "eval_rows is 0"),
        ({"unit": "input"}, "references_per_group is None; give a whole number from 1 up"),
        ({"references_per_group": 3}, "references_per_group is 3; .* unit 'row' does not read it"),
        ({"end": ""}, "end is ''; give a name or leave it None"),
        ({"begin": ""}, "begin is ''; give a name or leave it None"),
        ({"begin": "[CLS]", "max_prompt": 2}, "max_prompt is 2; give at least 3"),
        ({"root": "data"}, "root is 'data'; source 'embedded' .* does not read it: leave it None"),
        ({"train_file": "x"}, "train_file is 'x'; source 'embedded'"),
        ({"source": "files"}, "root is None; give the folder that holds the tasks' folders"),
        ({"source": "files", "root": "r", "train_file": ""}, "train_file is ''; give a name or"),
    ],
)
def test_each_bad_field_is_refused_at_construction(changes, message):
    with pytest.raises(ValueError, match=message):
        GenerationConfig(**{**EMBEDDED, **changes})


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("sst2", {}, "Unknown generation task 'sst2'"),
        ("e2e", {}, "e2e does not come from source 'embedded'; choose files"),
        ("restaurants", {"source": "files", "root": "r"}, "'files'; choose embedded"),
        ("dart", {"source": "files", "root": "r"}, "dart needs a published tokenizer"),
        ("restaurants", {"separator": "[GAP]"}, r"'\[GAP\]' cannot begin, separate or end texts"),
        ("restaurants", {"begin": "a"}, r"'a' cannot begin, separate or end texts"),
        ("restaurants", {"end": "[GAP]"}, r"'\[GAP\]' cannot begin, separate or end texts"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(task, changes, message):
    with pytest.raises(ValueError, match=message):
        load(task, GenerationConfig(**{**EMBEDDED, **changes}))


def test_a_token_that_begins_rows_stands_before_all_of_them():
    bare, begun = (
        load("restaurants", GenerationConfig(**{**EMBEDDED, "begin": begin}))
        for begin in (None, "[CLS]")
    )
    first = begun.codec.convert_tokens_to_ids("[CLS]")
    for without, with_it in (
        (bare.train, begun.train),
        (bare.evals["dev"].dataset, begun.evals["dev"].dataset),
    ):
        old = without.take(np.arange(5), 80)["input_ids"]
        new = with_it.take(np.arange(5), 81)["input_ids"]
        assert (new[:, 0] == first).all() and (new[:, 1:] == old).all()
    old, new = bare.evals["dev"], begun.evals["dev"]
    assert (new.prompts[:, 0] == first).all()
    assert (new.prompts[:, 1:] == old.prompts[:, :-1]).all()
    assert (new.prompt_lengths == old.prompt_lengths + 1).all()


def test_a_tokenizer_without_an_end_needs_a_named_one(words, tmp_path):
    tokenize.save_tokenizer(words, str(tmp_path))
    config = GenerationConfig(**{**EMBEDDED, "tokenizer": str(tmp_path)})
    with pytest.raises(ValueError, match=r"end is None, and tokenizer .* choose one of .*\[SEP\]"):
        load("restaurants", config)
    assert load("restaurants", dataclasses.replace(config, end="[PAD]")).end_id == 0


def test_a_missing_train_file_says_where_it_comes_from(tmp_path, word_folder):
    with pytest.raises(ValueError, match="which does not exist") as caught:
        load("e2e", files(str(tmp_path), word_folder))
    assert "trainset.csv or trainset.csv.gz of task e2e in " in str(caught.value)
    assert "get them from github.com/tuetschek/e2e-dataset." in str(caught.value)


def test_darts_train_file_is_asked_for_by_its_name_and_origin(shared, word_folder):
    with pytest.raises(ValueError, match=r"dart-v1\.1\.1-full-train\.json\.gz of task dart") as e:
        load("dart", files(str(shared / "data"), word_folder))
    assert "Yale-LILY/dart, folder data/v1.1.1" in str(e.value)
    assert "WebNLG's files are another task, webnlg, and do not stand for DART's" in str(e.value)


def test_triples_are_read_from_the_folder_of_their_task(tmp_path, word_folder):
    record = {"tripleset": [["a", "is", "old"]], "annotations": [{"text": "a"}, {"text": "b"}]}
    (tmp_path / "webnlg2017").mkdir()
    for name in ("train", "dev"):
        (tmp_path / "webnlg2017" / f"{name}.json").write_text(json.dumps([record]))
    loaded = load("webnlg", files(str(tmp_path), word_folder))
    assert loaded.num_examples == 2
    assert loaded.evals["dev"].inputs == ("a : is : old",)


def test_importing_the_module_does_not_import_slow_libraries():
    code = (
        "import sys, memarc.data.generation; "
        "print([n for n in ('transformers', 'tensorflow_datasets', 'jax') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("task", "train_file", "unit", "examples", "evals"),
    [
        ("e2e", "devset.csv", "row", 4_672, {"dev": (547, 4_672), "test": (630, 4_693)}),
        ("webnlg", None, "input", 6_893, {"dev": (871, 2_268)}),
    ],
)
def test_published_files_load_with_gpt2s_tokens(shared, task, train_file, unit, examples, evals):
    config = GenerationConfig(
        source="files",
        tokenizer=str(shared / "tokenizers" / "gpt2"),
        separator="<|endoftext|>",
        max_prompt=128,
        max_length=256,
        buckets=(256,),
        unit=unit,
        references_per_group=8 if unit == "input" else None,
        root=str(shared / "data"),
        train_file=train_file,
    )
    loaded = load(task, config)
    assert loaded.num_examples == examples
    found = {name: (len(part.inputs), len(part.dataset)) for name, part in loaded.evals.items()}
    assert found == evals
    assert loaded.separator_id == loaded.end_id == loaded.tokenizer.pad_id == 50_256
    dev = loaded.evals["dev"]
    target = dev.dataset.take(np.array([0]), 256)["input_ids"][0, dev.prompt_lengths[0] :]
    assert loaded.decode(target) == dev.references[0][0]
