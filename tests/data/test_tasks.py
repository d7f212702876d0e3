"""Task records say what the published files say."""

import pytest

from memarc.data.tasks import TASKS, get_task


def test_every_task_is_found_by_its_name_and_names_are_unique():
    names = [task.name for task in TASKS]
    assert names == ["sst2", "qnli", "qqp", "mnli", "reviews"]
    assert [get_task(name).name for name in names] == names


def test_an_unknown_task_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'cola'; choose one of sst2, qnli, qqp, mnli, reviews"):
        get_task("cola")


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
        ("reviews", (0, 1), ("accuracy",), ("dev",)),
    ],
)
def test_labels_metrics_and_evaluation_splits_are_fixed_by_the_record(name, labels, metrics, evals):
    task = get_task(name)
    assert (task.labels, task.metrics, task.eval_names) == (labels, metrics, evals)


@pytest.mark.checklist(32)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_declares_one_row_as_its_privacy_unit(task):
    assert task.privacy_unit == "one row"


@pytest.mark.parametrize("task", [task for task in TASKS if task.tfds], ids=lambda task: task.name)
def test_names_in_tensorflow_datasets_line_up_with_the_files(task):
    assert len(task.tfds.text_fields) == len(task.text_fields)
    assert len(task.tfds.labels) == len(task.labels)
    assert tuple(task.tfds.eval_splits) == task.eval_names
