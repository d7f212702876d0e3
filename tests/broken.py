"""Audits broken mechanisms, each in a copy of the code, and the mechanism as it is.

    python -m tests.broken FOLDER [NAME ..]

Each mechanism of `broken.toml` whose name holds one of the given texts is audited by
`experiments.audit` with `configs/audit.py:small`; without any, all are. Adds a line a mechanism to
FOLDER/broken.jsonl and draws FOLDER/broken.png. Ends with status 1 if an audit finds less than is
proven of a broken mechanism, or more of another. A mechanism takes half a minute on two cores.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib

from memarc.report import plots, records
from tests import mutants

LIST = mutants.ROOT / "tests" / "broken.toml"
LINES, PICTURE = "broken.jsonl", "broken.png"
CONFIG = "configs/audit.py:small"

_KEPT = (
    "proven_epsilon",
    "trajectory_epsilon",
    "released_epsilon",
    "confidence",
    "delta",
    "clip_norm",
    "noise_multiplier",
    "sampling_rate",
    "steps",
    "rows",
    "canaries",
    "device",
)


def read() -> list[dict]:
    """The mechanisms: name, whether it is broken, and the changes that make it."""
    return tomllib.loads(LIST.read_text(encoding="utf-8"))["mechanism"]


def break_copy(mechanism: dict, root: pathlib.Path) -> None:
    """Makes a mechanism's changes in a copy of the code."""
    for change in mechanism["changes"]:
        changed = mutants.mutated({"name": mechanism["name"], **change}, root)
        (root / change["file"]).write_text(changed, encoding="utf-8")


def audit(mechanism: dict) -> dict:
    """One line: what an audit of a mechanism finds, and what the config claims."""
    with tempfile.TemporaryDirectory() as folder:
        root, out = pathlib.Path(folder, "code"), pathlib.Path(folder, "out")
        root.mkdir()
        mutants.copy_code(root)
        break_copy(mechanism, root)
        line = [sys.executable, "-m", "experiments.audit", f"--config={CONFIG}", f"--workdir={out}"]
        done = subprocess.run(line, cwd=root, capture_output=True, text=True)
        file = out / "audit.json"
        if not file.is_file():
            raise ValueError(f"{mechanism['name']}: the audit ended with {done.stderr[-2000:]}")
        verdict = json.loads(file.read_text(encoding="utf-8"))
    found = verdict["empirical_epsilon"]
    return {
        "name": mechanism["name"],
        "is_broken": mechanism["is_broken"],
        "is_as_expected": (found > verdict["proven_epsilon"]) == mechanism["is_broken"],
        "empirical_epsilon": found,
        **{key: verdict[key] for key in _KEPT},
        "config": CONFIG,
        "commit": records.commit(mutants.ROOT),
    }


def main() -> int:
    """Audits the chosen mechanisms."""
    place, *names = sys.argv[1:]
    folder = pathlib.Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [x for x in read() if not names or any(name in x["name"] for name in names)]
    for mechanism in chosen:
        line = audit(mechanism)
        with (folder / LINES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        state = "as expected" if line["is_as_expected"] else "NOT AS EXPECTED"
        print(f"{state}: {line['name']}: at least {line['empirical_epsilon']:.3g}", flush=True)
    text = (folder / LINES).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    plots.audits(lines, folder / PICTURE)
    return 0 if all(line["is_as_expected"] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
