"""Generation task records name files, scores and privacy units."""

import pytest

from memarc.data.generation_tasks import GENERATION_TASKS, get_generation_task


def test_every_task_is_found_by_its_name_and_names_are_unique():
    names = [task.name for task in GENERATION_TASKS]
    assert names == ["e2e", "dart", "webnlg", "restaurants"]
    assert [get_generation_task(name).name for name in names] == names


def test_an_unknown_task_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'sst2'; choose one of e2e, dart, webnlg, restaurants"):
        get_generation_task("sst2")


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
        ("restaurants", "", "embedded", "", {"dev": ""}),
    ],
)
def test_files_are_fixed_by_the_record(name, folder, form, train, evals):
    task = get_generation_task(name)
    assert (task.folder, task.format, task.train_file) == (folder, form, train)
    assert task.eval_files == evals
    assert task.is_embedded == (form == "embedded") == (not task.origin)


@pytest.mark.checklist(32)
@pytest.mark.parametrize("task", GENERATION_TASKS, ids=lambda task: task.name)
def test_every_task_states_its_scores_and_privacy_units(task):
    more = ("bleu_e2e",) if task.name == "e2e" else ()
    assert task.metrics == (*more, "bleu", "rouge_l", "nist", "meteor_exact_stem", "cider")
    assert task.privacy_units["row"] == "one reference row"
    assert task.privacy_units["input"].format(references=4) == (
        "one meaning representation with its first 4 references"
    )
