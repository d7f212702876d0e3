"""Each bad field is refused by name, and so is one that loading a task would not read."""

import pytest

from memarc.data.config import DataConfig, check_fit
from memarc.data.tasks import get_task

CHANGES = {
    "root": "r",
    "train_file": "x",
    "split": "paper",
    "labels": ("no", "yes"),
    "range": (0.0, 1.0),
    "metrics": ("macro_f1",),
    "train": ("a.csv",),
    "dev": ("a.csv",),
    "encoding": "cp1252",
    "text": ("note",),
    "label": "ward",
    "target": "answer",
    "messages": "talk",
    "train_rows": 7,
    "dev_rows": 7,
    "rows_seed": 7,
    "eval_rows": 7,
    "unit": "input",
    "references_per_group": 3,
    "user": "patient",
    "rows_per_user": 3,
    "separator": "[SEP]",
    "max_prompt": 9,
    "begin": "[CLS]",
    "end": "[SEP]",
}
"""A value other than the default for every field that some task does not read."""

ROWS = {"train_rows", "dev_rows", "rows_seed"}
PEOPLE = {"user", "rows_per_user"}
TEXTS = {"unit", "references_per_group", "separator", "max_prompt", "begin", "end"}
FILES = {"root", "train_file"}
COLUMNS = {"train", "dev", "encoding", "text", "label", "target", "messages"}
OWN = {*COLUMNS, *PEOPLE, "labels", "range", "metrics"}
MEMORY = {"source": "memory", "labels": ("good", "bad")}
OWN_NOTES = {
    "source": "own",
    "train": ("train.csv",),
    "text": ("text",),
    "label": "label",
    "labels": ("good", "bad"),
}

# A task, a config that fits it, and the fields that it does not read.
CASES = [
    ("sst2", {"root": "r"}, {*OWN, *ROWS, *TEXTS}),
    ("sst2", {"root": "r", "source": "tfds"}, {"train_file", *OWN, *ROWS, *TEXTS}),
    ("qqp", {"root": "r", "source": "tfds_download"}, {"train_file", *OWN, *ROWS, *TEXTS}),
    ("reviews", {"source": "embedded"}, {*OWN, *FILES, *TEXTS}),
    ("classification", MEMORY, {"range", "rows_per_user", *COLUMNS, *FILES, *ROWS, *TEXTS}),
    (
        "classification",
        OWN_NOTES,
        {"range", "rows_per_user", "target", "messages", *FILES, *ROWS, *TEXTS},
    ),
    (
        "regression",
        {"source": "memory", "range": (0.0, 5.0)},
        {"split", "labels", "rows_per_user", *COLUMNS, *FILES, *ROWS, *TEXTS},
    ),
    ("e2e", {"root": "r"}, {"split", "references_per_group", *OWN, *ROWS}),
    ("webnlg", {"root": "r"}, {"split", "references_per_group", *OWN, *ROWS}),
    (
        "restaurants",
        {"source": "embedded"},
        {"split", "references_per_group", *OWN, *FILES},
    ),
    (
        "generation",
        {"source": "memory"},
        {
            "split",
            "labels",
            "range",
            "references_per_group",
            "rows_per_user",
            *(COLUMNS - {"messages"}),
            *FILES,
            *ROWS,
        },
    ),
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "glue"}, "'glue'; choose one of files, tfds, tfds_download, embedded, memory"),
        ({"split": "half"}, "'half'; choose one of official, paper"),
        ({"unit": "person"}, "'person'; choose one of row, input"),
        ({"tokenizer": ""}, "tokenizer is ''; give a folder, a hub name or 'word_level'"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": 32.0}, "max_length is 32.0"),
        ({"buckets": (64,)}, "ends with max_length = 96"),
        ({"buckets": []}, "give a tuple of whole numbers"),
        ({"root": ""}, "root is ''; give a folder"),
        ({"train_file": ""}, "train_file is ''; give a name or leave it None"),
        ({"train_rows": 0}, "train_rows is 0"),
        ({"dev_rows": True}, "dev_rows is True"),
        ({"rows_seed": -1}, "rows_seed is -1"),
        ({"eval_rows": 0}, "eval_rows is 0"),
        ({"references_per_group": 0}, "references_per_group is 0; give a whole number from 1 up"),
        ({"user": ""}, "user is ''; give the name of a column or leave it None"),
        ({"rows_per_user": 0}, "rows_per_user is 0; give a whole number from 1 up"),
        ({"rows_per_user": 2.0}, "rows_per_user is 2.0; give a whole number"),
        ({"separator": ""}, "separator is ''; give a special token"),
        ({"begin": ""}, "begin is ''; give a special token of the tokenizer or leave it None"),
        ({"end": ""}, "end is ''; give a special token of the tokenizer or leave it None"),
        ({"max_prompt": 1}, "max_prompt is 1; give a whole number from 2 up"),
        ({"labels": ["no", "yes"]}, r"labels is \['no', 'yes'\]; give a tuple of texts"),
        ({"labels": ("no", 1)}, r"labels is \('no', 1\); give a tuple of texts"),
        ({"labels": ("no", "no")}, r"labels is \('no', 'no'\); give each label once"),
    ],
)
def test_each_bad_field_is_refused_at_construction(changes, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**{"max_length": 96, **changes})


def test_one_bucket_and_half_of_the_length_stand_in_for_what_is_not_given():
    config = DataConfig(max_length=31)
    assert (config.padded_lengths, config.prompt_cap) == ((31,), 15)
    config = DataConfig(max_length=31, buckets=(8, 31), max_prompt=9)
    assert (config.padded_lengths, config.prompt_cap) == ((8, 31), 9)


@pytest.mark.parametrize(("task", "given", "unread"), CASES, ids=[case[0] for case in CASES])
def test_every_field_is_read_or_refused_with_the_value_to_leave_it_at(task, given, unread):
    task = get_task(task)
    check_fit(task, DataConfig(**given))
    for name, value in CHANGES.items():
        config = DataConfig(**{**given, name: value})
        if name in unread:
            default = getattr(DataConfig(), name)
            with pytest.raises(ValueError, match=rf"^{name} is .* does not read it: leave") as e:
                check_fit(task, config)
            assert str(e.value).endswith(f"leave it {default!r}.")
        elif name not in ("unit", "user"):  # Which need another field: see below.
            check_fit(task, config)


def test_a_refusal_says_who_does_not_read_the_field():
    for task, changes, message in [
        ("reviews", {"source": "embedded", "root": "data"}, "root is 'data'; source 'embedded' do"),
        ("e2e", {"root": "r", "references_per_group": 3}, "is 3; unit 'row' does not read it"),
        ("e2e", {"root": "r", "split": "paper"}, "task e2e, of generation, does not read it"),
        ("sst2", {"root": "r", "user": "x"}, "'x'; task sst2, whose rows name no people, does no"),
        ("classification", {**MEMORY, "rows_per_user": 2}, "is 2; user None does not read it"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_fit(get_task(task), DataConfig(**changes))


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("sst2", {"source": "embedded"}, "sst2 does not come from source 'embedded'; choose files"),
        ("sst2", {"source": "memory"}, "choose files or tfds or tfds_download"),
        ("e2e", {"source": "embedded"}, "e2e does not come from source 'embedded'; choose files"),
        ("e2e", {"source": "tfds", "root": "r"}, "e2e does not come from source 'tfds'"),
        ("reviews", {"root": "r"}, "'files'; choose embedded"),
        ("restaurants", {"root": "r"}, "'files'; choose embedded"),
        ("classification", {"root": "r"}, "'files'; choose memory or own"),
        ("sst2", {}, "root is None; source 'files' needs a folder"),
        ("qqp", {"source": "tfds"}, "root is None; source 'tfds' needs a folder"),
        ("e2e", {}, "root is None; source 'files' needs a folder"),
        ("qqp", {"root": "r", "tokenizer": "word_level"}, "qqp needs a published tokenizer"),
        ("dart", {"root": "r", "tokenizer": "word_level"}, "dart needs a published tokenizer"),
        ("generation", {"source": "memory", "tokenizer": "word_level"}, "a published tokenizer"),
        (
            "e2e",
            {"root": "r", "unit": "input"},
            "references_per_group is None; give a whole number from 1 up",
        ),
        ("generation", {"source": "memory", "user": "x"}, "rows_per_user is None; .* user 'x' nee"),
        (
            "generation",
            {"source": "memory", "user": "x", "unit": "input", "references_per_group": 2},
            "user is 'x' and unit 'input'; both would group rows, by person and by input",
        ),
        (
            "classification",
            {**MEMORY, "user": "x", "rows_per_user": 2, "split": "paper"},
            "user is 'x' and split 'paper', which cuts rows",
        ),
        ("classification", {"source": "memory"}, r"labels is \(\); declare all labels"),
        ("classification", {"source": "memory", "labels": ("a",)}, "at least two"),
        (
            "e2e",
            {"root": "r", "max_length": 96, "max_prompt": 96},
            "max_length is 96, .* max_prompt = 96; leave room for a target",
        ),
        ("e2e", {"root": "r", "max_length": 3}, "max_prompt is 1; give at least 2"),
        ("e2e", {"root": "r", "begin": "[CLS]", "max_prompt": 2}, "is 2; give at least 3"),
    ],
)
def test_what_is_missing_or_does_not_go_together_is_refused(task, changes, message):
    with pytest.raises(ValueError, match=message):
        check_fit(get_task(task), DataConfig(**changes))


def test_the_unit_of_one_input_needs_and_reads_the_number_of_references():
    for changes in ({"root": "r"}, {"source": "memory"}, {"source": "embedded"}):
        task = {"files": "e2e", "memory": "generation", "embedded": "restaurants"}
        config = DataConfig(unit="input", references_per_group=2, **changes)
        check_fit(get_task(task[config.source]), config)


def test_the_unit_of_a_person_needs_and_reads_the_number_of_rows():
    person = {"user": "patient", "rows_per_user": 5}
    for task, changes in (
        ("classification", MEMORY),
        ("classification", OWN_NOTES),
        ("regression", {"source": "memory", "range": (0.0, 5.0)}),
        ("generation", {"source": "memory"}),
    ):
        config = DataConfig(**changes, **person)
        check_fit(get_task(task), config)
        assert (config.protects, config.rows_per_unit) == ("person", 5)
    config = DataConfig(unit="input", references_per_group=2)
    assert (config.protects, config.rows_per_unit) == ("input", 2)
    assert (DataConfig().protects, DataConfig().rows_per_unit) == ("row", None)
