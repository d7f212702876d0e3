"""Task records say what the published files say, and what a unit of privacy is."""

import pytest

from memarc.batches import CLASSIFICATION, GENERATION
from memarc.data.tasks import TASKS, get_task

CLASSIFIED = ["sst2", "qnli", "qqp", "mnli", "reviews", "classification"]
WRITTEN = ["e2e", "dart", "webnlg", "restaurants", "generation"]
OF_GLUE = [task for task in TASKS if task.tfds]


def test_every_task_is_found_by_its_name_and_names_are_unique():
    names = [task.name for task in TASKS]
    assert names == [*CLASSIFIED, "regression", *WRITTEN]
    assert [get_task(name).name for name in names] == names


def test_an_unknown_task_is_refused_with_all_choices():
    with pytest.raises(ValueError, match="'cola'; choose one of sst2, qnli, qqp, mnli, rev") as e:
        get_task("cola")
    assert all(name in str(e.value) for name in CLASSIFIED + WRITTEN)


@pytest.mark.parametrize(
    ("name", "labels", "metrics", "evals"),
    [
        ("sst2", (0, 1), ("accuracy",), ("dev",)),
        ("qnli", ("entailment", "not_entailment"), ("accuracy",), ("dev",)),
        ("qqp", (0, 1), ("accuracy", "f1"), ("dev",)),
        (
            "mnli",
            ("entailment", "neutral", "contradiction"),
            ("accuracy",),
            ("matched", "mismatched"),
        ),
        ("reviews", (0, 1), ("accuracy",), ()),
        ("classification", (), ("accuracy",), ()),
    ],
)
def test_labels_metrics_and_evaluation_sets_are_fixed_by_the_record(name, labels, metrics, evals):
    task = get_task(name)
    assert task.kind == CLASSIFICATION
    assert (task.labels, task.metrics, tuple(task.eval_files)) == (labels, metrics, evals)


@pytest.mark.parametrize(
    ("name", "folder", "form", "train", "evals"),
    [
        (
            "e2e",
            "e2e",
            "csv",
            "trainset.csv",
            {"dev": "devset.csv", "test": "testset_w_refs.csv"},
        ),
        (
            "dart",
            "dart",
            "triples",
            "dart-v1.1.1-full-train.json",
            {"dev": "dart-v1.1.1-full-dev.json", "test": "dart-v1.1.1-full-test.json"},
        ),
        ("webnlg", "webnlg2017", "triples", "train.json", {"dev": "dev.json"}),
        ("restaurants", "", "grammar", "", {}),
        ("generation", "", "memory", "", {}),
    ],
)
def test_files_of_generation_are_fixed_by_the_record(name, folder, form, train, evals):
    task = get_task(name)
    assert task.kind == GENERATION and len(task.text_fields) == 2
    assert (task.folder, task.format, task.train_file) == (folder, form, train)
    assert task.eval_files == evals
    assert (form in ("grammar", "memory")) == (not task.origin)


@pytest.mark.parametrize("task", OF_GLUE, ids=lambda task: task.name)
def test_files_of_glue_are_named_alike(task):
    assert (task.folder, task.format, task.train_file) == (task.name, "tsv", "train.tsv")
    assert task.archive.startswith("https://dl.fbaipublicfiles.com/glue/data/")


@pytest.mark.parametrize(
    ("form", "sources"),
    [
        ("tsv", ("files", "tfds", "tfds_download")),
        ("csv", ("files",)),
        ("triples", ("files",)),
        ("grammar", ("embedded",)),
        ("memory", ("memory", "own")),
    ],
)
def test_sources_follow_from_the_form_of_the_rows(form, sources):
    found = [task.sources for task in TASKS if task.format == form]
    assert found and set(found) == {sources}


PERSON_OF_FOUR = {"person": "one person with all rows of theirs, of which up to 4 are used"}


def units_of(name, rows):
    return {unit: text.format(rows=rows) for unit, text in get_task(name).units.items()}


@pytest.mark.checklist(32)
@pytest.mark.parametrize("name", CLASSIFIED)
def test_every_task_of_classification_declares_one_row_as_its_privacy_unit(name):
    of_people = get_task(name).format == "memory"  # A user's own rows may say whose they are.
    assert units_of(name, 4) == {"row": "one row"} | (PERSON_OF_FOUR if of_people else {})


@pytest.mark.checklist(32)
@pytest.mark.parametrize("name", WRITTEN)
def test_every_task_of_generation_states_its_scores_and_privacy_units(name):
    task = get_task(name)
    more = ("bleu_e2e",) if name == "e2e" else ()
    assert task.metrics == (*more, "bleu", "rouge_l", "nist", "meteor_exact_stem", "cider")
    given = "input" if name == "generation" else "meaning representation"
    assert units_of(name, 4) == {
        "row": "one reference row",
        "input": f"one {given} with its first 4 references",
        **(PERSON_OF_FOUR if name == "generation" else {}),
    }


@pytest.mark.parametrize("task", OF_GLUE, ids=lambda task: task.name)
def test_names_in_tensorflow_datasets_line_up_with_the_files(task):
    assert len(task.tfds.text_fields) == len(task.text_fields)
    assert len(task.tfds.labels) == len(task.labels)
    assert tuple(task.tfds.eval_splits) == tuple(task.eval_files)
