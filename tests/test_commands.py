"""Commands of tests begin with all that they import: each import anew would take seconds."""

from tests import commands

PROBE = """
import sys
names = "memarc.runs.run", "sklearn.metrics", "tokenizers"
print(*(name for name in names if name in sys.modules))
"""


def test_a_forked_command_finds_imported_what_runs_import(tmp_path):
    (tmp_path / "probe_of_imports.py").write_text(PROBE)
    done = commands.run("probe_of_imports", path=[tmp_path])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["memarc.runs.run", "sklearn.metrics", "tokenizers"]
