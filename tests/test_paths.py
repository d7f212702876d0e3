"""Places out of what users write: one home folder, one spelling, and secrets for their owner."""

import pathlib

import pytest

from experiments import cli
from memarc import paths

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_tilde_is_the_home_folder_and_a_hubs_names_stay(home):
    assert paths.place("~/a/b") == home / "a" / "b"
    assert paths.expanded("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"
    assert cli._installed("--config=~/own.py:smoke") == f"--config={home}/own.py:smoke"
    assert cli._installed("--config") == "--config"


@pytest.mark.checklist(45)
def test_all_spellings_of_a_place_are_one(home):
    (home / "link").symlink_to(home / "real")
    spellings = ("~/real", "real", "./x/../real", "link", str(home / "real"))
    assert {paths.identity(x) for x in spellings} == {home / "real"}


def test_no_other_file_makes_places_out_of_a_tilde():
    """What users write goes through `memarc.paths`, so a ledger has one place."""
    found = [
        path.relative_to(ROOT).as_posix()
        for package in ("memarc", "experiments")
        for path in (ROOT / package).rglob("*.py")
        if "expanduser" in path.read_text()
    ]
    assert found == ["memarc/paths.py"]


def test_a_file_system_that_keeps_no_modes_is_told(home, caplog, monkeypatch):
    (home / "open").mkdir()
    (home / "open").chmod(0o755)
    monkeypatch.setattr(paths.os, "chmod", lambda path, mode: None)
    paths.make_private_folder(home / "open")
    assert "open holds secrets and has mode 755" in caplog.text
    caplog.clear()
    paths.make_private_folder(home / "new")
    assert not caplog.text
