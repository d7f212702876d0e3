"""Columns of files become rows of each kind of task; what does not fit is named by its line."""

import json

import numpy as np
import pytest

from memarc.data import own_rows
from memarc.data.config import DataConfig, check_fit
from memarc.data.load import task_of

SECRET = "Zebediah"


@pytest.fixture
def read(tmp_path):
    """Reads rows of a task from the content of a train and a dev file."""

    def read(task, train, dev=None, ending=".csv", **fields):
        places = {}
        for name, content in {"train": train, "dev": dev}.items():
            if content is not None:
                (tmp_path / f"{name}{ending}").write_text(content, encoding="utf-8")
                places[name] = (str(tmp_path / f"{name}{ending}"),)
        config = DataConfig(source="own", **places, **fields)
        record = task_of(task, config)
        check_fit(record, config)
        return own_rows.read(record, config)

    return read


WARDS = {"text": ("note",), "label": "ward", "labels": ("surgery", "neurology")}


def test_labels_become_their_places_among_the_declared_ones(read):
    train, evals = read(
        "classification", "ward,note\nneurology,a\n surgery ,\n", "note,ward\n", **WARDS
    )
    assert train.columns == (["a", ""],) and train.labels.tolist() == [1, 0]
    assert train.labels.dtype == np.int32 and len(evals["dev"]) == 0


def test_pairs_and_whole_numbers_as_labels_are_read_from_json(read):
    rows = [{"a": "x", "b": "y", "l": 1.0}, {"a": "u", "b": "v", "l": 0}]
    train, evals = read(
        "classification",
        "\n".join(map(json.dumps, rows)),
        ending=".jsonl",
        text=("a", "b"),
        label="l",
        labels=("0", "1"),
    )
    assert train.columns == (["x", "u"], ["y", "v"]) and train.labels.tolist() == [1, 0]
    assert evals == {}


def test_numbers_become_shares_of_the_declared_range(read):
    train, _ = read(
        "regression", "t,n\na,-1\nb,3\nc,0.5\n", text=("t",), label="n", range=(-1.0, 3.0)
    )
    assert train.labels.tolist() == [0.0, 1.0, 0.375] and train.labels.dtype == np.float32


def test_a_template_makes_the_prompt_of_several_columns(read):
    train, _ = read(
        "generation",
        "q,c,answer\nwho?,x y,me\n",
        text=("q", "c"),
        target="answer",
        template="{c} Q: {q}",
    )
    assert train.columns == (["x y Q: who?"], ["me"]) and train.labels is None


def test_conversations_end_with_what_is_wanted(read):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    train, _ = read("generation", json.dumps({"talk": talk}), ending=".jsonl", messages="talk")
    assert train.columns == ([json.dumps(talk[:1])], ["b"])


def test_people_are_named_by_a_column_of_the_train_files_alone(read):
    content = [{"p": 7, "note": "a", "ward": "surgery"}, {"p": " x ", "note": "b", "ward": "1"}]
    content += [{"p": 7.0, "note": "c", "ward": "1"}, {"p": "7", "note": "a", "ward": "surgery"}]
    train, evals = read(
        "classification",
        "\n".join(map(json.dumps, content)),
        json.dumps({"note": "a", "ward": "1"}),
        ending=".jsonl",
        text=("note",),
        label="ward",
        labels=("surgery", "1"),
        user="p",
        rows_per_user=2,
    )
    assert train.users == ["7", "x", "7", "7"] and train.columns == (["a", "b", "c", "a"],)
    assert evals["dev"].users is None


def test_conversations_and_texts_to_write_have_people_too(read):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    people = {"user": "p", "rows_per_user": 1}
    line = json.dumps({"p": "x", "talk": talk, "q": "u", "a": "v"})
    train, _ = read("generation", line, ending=".jsonl", messages="talk", **people)
    assert (train.users, train.columns[1]) == (["x"], ["b"])
    train, _ = read("generation", line, ending=".jsonl", text=("q",), target="a", **people)
    assert (train.users, train.columns) == (["x"], (["u"], ["v"]))


OF_PEOPLE = {"text": ("note",), "label": "ward", "labels": ("a", "b"), "rows_per_user": 2}
BAD = [
    (
        "classification",
        f"note,ward,who\n{SECRET},a,x\n{SECRET},b,\n{SECRET},b, \n",
        {**OF_PEOPLE, "user": "who"},
        r"column who: there is no person on line 3, 4 \(of 3 rows\)",
    ),
    (
        "classification",
        f"note,ward,who\n{SECRET},a,x\n",
        {**OF_PEOPLE, "user": "patient"},
        r"no column patient among the 3 columns there \(note, ward, who\); the first line",
    ),
    (
        "classification",
        f"{SECRET},ward\n{SECRET},a\n",
        {**OF_PEOPLE, "user": "patient"},
        r"no column note among the 2 columns there; the first line must",
    ),
    (
        "classification",
        f"note,ward\na,surgery\n\nb,{SECRET}\nc,{SECRET}\n",
        WARDS,
        r"column ward: the label is none of the declared \['surgery', 'neurology'\] on line 4, 5 "
        r"\(of 3 rows\)",
    ),
    (
        "regression",
        f"note,n\n{SECRET},7\nb,nan\nc,{SECRET}\nd,1\n",
        {"text": ("note",), "label": "n", "range": (0.0, 5.0)},
        "column n: there is no number from 0 to 5 on line 2, 3, 4",
    ),
    (
        "generation",
        f"note,n\n{SECRET}, \n",
        {"text": ("note",), "target": "n"},
        "column n: there is no text on line 2",
    ),
    (
        "generation",
        f"note\n{SECRET}\n",
        {"messages": "note"},
        "column note: there is no list of .* ends with a turn of the assistant on line 2",
    ),
]


@pytest.mark.checklist(18)
@pytest.mark.parametrize(("task", "content", "fields", "message"), BAD)
def test_rows_that_do_not_fit_are_named_by_line_and_not_quoted(
    read, task, content, fields, message
):
    with pytest.raises(ValueError, match=message) as caught:
        read(task, content, **fields)
    assert SECRET not in str(caught.value)


MISTAKES = [
    ("classification", {"label": "w"}, r"text is \(\); task classification is one of"),
    ("classification", {"text": ("a",)}, "label is None; .*: name a column"),
    ("classification", {**WARDS, "text": ("a", "b", "c")}, "at most 2 without a template"),
    ("classification", {**WARDS, "metrics": ("rmse",)}, r"metrics has \['rmse'\]; those of"),
    (
        "classification",
        {**WARDS, "labels": ("a", "b", "c"), "metrics": ("accuracy", "f1")},
        r"metrics has \['f1'\], of two labels; there are 3. Choose accuracy, macro_f1",
    ),
    ("classification", {**WARDS, "encoding": "utf-9"}, "encoding is 'utf-9', which Python"),
    ("regression", {"text": ("a",), "label": "n"}, r"range is \(\); declare the least"),
    ("regression", {"range": (5.0, 0.0)}, "give two finite numbers, the lower first"),
    ("generation", {"text": ("a",)}, "target is None; .*: name a column"),
    ("generation", {"messages": "m", "text": ("a",)}, "with messages .*: leave it out"),
    ("generation", {"messages": "m", "separator": "[SEP]"}, "a chat template does not read it"),
]


@pytest.mark.parametrize(("task", "fields", "message"), MISTAKES)
def test_a_mistake_in_the_config_is_told_before_files_are_read(task, fields, message):
    if task == "classification":
        fields = {"labels": ("a", "b"), **fields}
    with pytest.raises(ValueError, match=message):
        config = DataConfig(source="own", train=("gone.csv",), **fields)
        check_fit(task_of(task, config), config)


@pytest.mark.checklist(18)
@pytest.mark.parametrize("cell", [None, [SECRET], True, 1.5, " "])
def test_cells_that_name_nobody_are_told_by_line(read, cell):
    rows = [{"note": "a", "ward": "a", "who": who} for who in ("x", cell)]
    content = "\n".join(map(json.dumps, rows))
    with pytest.raises(ValueError, match="column who: there is no person on line 2") as caught:
        read("classification", content, ending=".jsonl", user="who", **OF_PEOPLE)
    assert SECRET not in str(caught.value)
    with pytest.raises(ValueError, match="no field patient among note, ward, who; it needs note"):
        read("classification", content, ending=".jsonl", user="patient", **OF_PEOPLE)
