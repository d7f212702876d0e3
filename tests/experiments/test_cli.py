"""Command lines: config files from any folder, one message for a mistake, and thin commands."""

import ast
import pathlib

import pytest

from experiments import cli, overriding
from tests import commands

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = sorted((ROOT / "experiments").glob("*.py"))


def test_a_command_works_from_any_folder(tmp_path):
    """The config is the installed one where there is none here; its weights are found too."""
    done = commands.run(
        "experiments.account", "--config=configs/quickstart.py:smoke", cwd=tmp_path, path=[ROOT]
    )
    assert done.returncode == 0, done.stderr
    assert "restaurants" in done.stdout and "reversible" in done.stdout


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("--config=configs/sst2.py", f"--config={ROOT}/configs/sst2.py"),
        ("--config=configs/sst2.py:smoke", f"--config={ROOT}/configs/sst2.py:smoke"),
        ("-config=configs/absent.py", f"-config={ROOT}/configs/absent.py"),
        ("--config=other/sst2.py", "--config=other/sst2.py"),
        ("--config.data.root=configs/x", "--config.data.root=configs/x"),
        ("--workdir=configs/sst2.py", "--workdir=configs/sst2.py"),
    ],
)
def test_a_config_that_is_not_here_is_the_installed_one(tmp_path, monkeypatch, given, wanted):
    monkeypatch.chdir(tmp_path)
    assert cli._installed(given) == wanted
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sst2.py").touch()
    assert cli._installed("--config=configs/sst2.py") == "--config=configs/sst2.py"


def test_a_run_that_is_made_another_on_the_command_line_says_so_in_its_name():
    """Its own values give way to those of the command line; a name tells method and budget."""

    def given():
        own = {"a-eps8": ("a", 8.0), "b-eps3": ("b", 3.0)}
        runs = {
            name: {"method": method, "privacy": {"epsilon": budget}, "optimizer": {"rate": budget}}
            for name, (method, budget) in own.items()
        }
        return {
            "method": "b",
            "privacy": {"epsilon": 3.0},
            "optimizer": {"rate": 0.5},
            "runs": runs,
        }

    config = given()
    overriding.give_way(config, ["method"])
    assert list(config["runs"]) == ["a-eps8+method=b", "b-eps3"]
    assert all("method" not in changes for changes in config["runs"].values())
    overriding.give_way(config, ["privacy", "epsilon"])
    assert list(config["runs"]) == ["a-eps8+method=b+privacy.epsilon=3", "b-eps3"]
    config = given()
    overriding.give_way(config, ["optimizer", "rate"])  # No name tells it.
    assert list(config["runs"]) == ["a-eps8", "b-eps3"]
    assert [x["optimizer"] for x in config["runs"].values()] == [{}, {}]
    nested = {"runs": {}, "more": {"x": given()}}
    overriding.give_way(nested, ["more", "x", "method"])
    assert "a-eps8+method=b" in nested["more"]["x"]["runs"] and nested["runs"] == {}


def test_commands_are_thin():
    """They parse flags, call the library and print: no class and no numerics stand in them."""
    sizes = {path.name: len(path.read_text().splitlines()) for path in COMMANDS}
    assert sum(sizes.values()) < 1500 and max(sizes.values()) <= 150, sizes
    for path in COMMANDS:
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(tree)), path
