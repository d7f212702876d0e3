"""Packages import one way, and heavy libraries have their gates."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = [path.relative_to(ROOT) for path in sorted((ROOT / "memarc").glob("*/*.py"))]

MAY_IMPORT = {
    "ops": set(),
    "models": {"ops"},
    "data": set(),
    "privacy": {"ops"},
    "report": set(),
    "training": {"privacy", "ops"},
    "evaluation": {"data", "models"},
}

GATES = {  # Library -> the files that may import it.
    "transformers": {"data/tokenize.py"},
    "tensorflow_datasets": {"data/tfds_source.py"},
    "dp_accounting": {"privacy/accounting.py"},
    "jax_privacy": {"privacy/audit.py"},
    "safetensors": {"models/pretrained.py", "models/tensor_files.py", "training/export.py"},
    "orbax": {"training/checkpoint.py"},
    "sklearn": {"evaluation/scores.py"},
    "sacrebleu": {"evaluation/text_scores.py", "evaluation/words.py"},
    "nltk": {"evaluation/text_scores.py"},
    "ml_collections": set(),
    "absl": set(),
    "tensorflow": set(),
    "torch": set(),
    "experiments": set(),
    "configs": set(),
}


def imports(path):
    """Dotted names that a file imports, at any depth."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_one_way(path):
    package = path.parent.name
    for parts in (name.split(".") for name in imports(path)):
        if parts[0] == "memarc" and (ROOT / "memarc" / parts[1]).is_dir():
            assert parts[1] in MAY_IMPORT[package] | {package}, f"{package} imports {parts[1]}"
        if parts[0] in GATES:
            place = f"{package}/{path.name}"
            assert place in GATES[parts[0]], f"{place} imports {parts[0]}"


def test_every_package_has_a_rule_and_every_gate_is_used():
    assert {path.parent.name for path in FILES} == set(MAY_IMPORT)
    for library, places in GATES.items():
        for place in places:
            names = {name.split(".")[0] for name in imports(f"memarc/{place}")}
            assert library in names, f"{place} no longer imports {library}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_init_files_are_one_docstring(path):
    if path.name == "__init__.py":
        body = ast.parse((ROOT / path).read_text()).body
        assert len(body) == 1 and isinstance(body[0], ast.Expr)


def test_no_library_code_names_a_package_host():
    """Nor does any other file of the project."""
    for path in ROOT.rglob("*"):
        if path.suffix in (".py", ".cfg", ".toml", ".md", ".sh") and ".git" not in path.parts:
            assert "pypi." + "org" not in path.read_text(encoding="utf-8"), path
