"""The command that looks at a model prints a line and a table, and tells mistakes in one line."""

import json

import pytest

from tests import commands
from tests.measure.test_inspect import folder_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return folder_of(folder, "bert", vocab_size=61, type_vocab=2, pad_id=0, activation="gelu")


def test_a_line_and_a_table(folder, tmp_path):
    output = tmp_path / "lines.jsonl"
    done = commands.run(
        "experiments.inspect",
        f"--weights={folder}",
        f"--output={output}",
        *("--methods=side", "--engines=vmap", "--batch_size=3", "--seq_len=7", "--nocompare"),
    )
    assert done.returncode == 0, done.stderr
    first, *table = done.stdout.splitlines()
    line = json.loads(first)
    assert json.loads(output.read_text()) == line
    assert (line["family"], line["tokenizer"], line["rows"]) == ("bert", None, "random ids")
    assert line["states_error"] is line["plain_loss"] is None
    assert line["mismatched_values"] == line["saturated_values"] == 0
    assert line["methods"].keys() == {"side"}
    assert "reduction" in line["methods"]["side"]["error"]  # Heads are 4 wide.
    assert len(table) == 3 and table[2].startswith("side") and "reduction" in table[2]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), "No --weights was given"),
        (("--weights=/nowhere/x",), "No weights at '/nowhere/x'"),
        (("--weights=/nowhere/x.gguf",), "No weights at '/nowhere/x.gguf'"),
        (("--weights=.",), "config.json cannot be read"),
        (("--weights=.", "--methods=prefix"), "Unknown method 'prefix'"),
        (("--weights=.", "--engines=fast"), "Unknown engine 'fast'"),
        (("--weights={}", "--tokenizer=/nowhere/y"), "There is no tokenizer folder /nowhere/y"),
    ],
)
def test_a_mistake_is_one_message(folder, given, told):
    done = commands.run("experiments.inspect", *(x.format(folder) for x in given))
    assert done.returncode == 2 and not done.stdout
    assert told in done.stderr and "Traceback" not in done.stderr
