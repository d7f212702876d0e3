"""Breaks mechanisms one at a time in a copy of the code, and runs the tests that must notice.

    python -m tests.mutants [NAME ..]

Each mutant of `mutants.toml` whose name holds one of the given texts is applied; without any, all
are, and the result becomes docs/mutants.md. Prints a line for each, and ends with status 1 if one
survives. It takes about ten minutes on two idle cores.
"""

import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "mutants.toml"
PAGE = ROOT / "docs" / "mutants.md"
_CODE = ("memarc", "experiments", "configs", "examples", "tests", "setup.cfg", "pyproject.toml")


def read() -> list[dict]:
    """The mutants: name, file, old, new and tests of each."""
    return tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]


def copy_code(root: pathlib.Path) -> None:
    """Copies all that tests and commands need into an empty folder."""
    for name in _CODE:
        place = ROOT / name
        (shutil.copytree if place.is_dir() else shutil.copy)(place, root / name)


def mutated(mutant: dict, root: pathlib.Path) -> str:
    """The text of a mutant's file with its change.

    Raises:
      ValueError: If the text that it changes does not stand there once.
    """
    text = (root / mutant["file"]).read_text(encoding="utf-8")
    if text.count(mutant["old"]) != 1:
        raise ValueError(
            f"{mutant['name']}: its text stands {text.count(mutant['old'])} times in "
            f"{mutant['file']}; bring tests/mutants.toml up to date."
        )
    return text.replace(mutant["old"], mutant["new"])


def is_killed(mutant: dict, root: pathlib.Path) -> bool:
    """Whether one of a mutant's tests fails on it; the file is as before afterwards."""
    file = root / mutant["file"]
    before = file.read_text(encoding="utf-8")
    file.write_text(mutated(mutant, root), encoding="utf-8")
    try:
        for tests in mutant["tests"]:
            line = [sys.executable, "-m", "pytest", "-q", "-x", *shlex.split(tests)]
            done = subprocess.run(line, cwd=root, capture_output=True, text=True)
            if done.returncode not in (0, 1):
                raise ValueError(f"{mutant['name']}: {shlex.join(line)} ended with {done.stderr}")
            if done.returncode == 1:
                return True
    finally:
        file.write_text(before, encoding="utf-8")
    return False


def page(is_killed_by_name: dict[str, bool]) -> str:
    """The page that says what became of every mutant."""
    rows = [
        f"| {mutant['name']} | `{mutant['file']}` | {_told(mutant)} | "
        f"{'killed' if is_killed_by_name[mutant['name']] else 'SURVIVES'} |"
        for mutant in read()
    ]
    killed = sum(is_killed_by_name.values())
    return f"""# Mutants

Each row is a mechanism that is broken on purpose, in a copy of the code: a text of a file, and what
stands in its place (`tests/mutants.toml`). The tests that are named must fail on it. They did on
{killed} of {len(rows)}. Made by `python -m tests.mutants`.

| broken mechanism | file | tests that must notice | found |
| --- | --- | --- | --- |
{chr(10).join(rows)}
"""


def _told(mutant: dict) -> str:
    """The tests of a mutant as a cell."""
    return "<br>".join(f"`{tests}`" for tests in mutant["tests"])


def main() -> int:
    """Applies the chosen mutants."""
    chosen = [
        mutant
        for mutant in read()
        if not sys.argv[1:] or any(part in mutant["name"] for part in sys.argv[1:])
    ]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        copy_code(root)
        for number, mutant in enumerate(chosen, 1):
            start = time.perf_counter()
            found[mutant["name"]] = is_killed(mutant, root)
            state = "killed" if found[mutant["name"]] else "SURVIVES"
            seconds = time.perf_counter() - start
            print(f"{number}/{len(chosen)} {state}, {seconds:.0f} s: {mutant['name']}", flush=True)
    print(f"{sum(found.values())} of {len(chosen)} killed.")
    if len(chosen) == len(read()):
        PAGE.write_text(page(found), encoding="utf-8")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
