"""Packages import one way, and heavy libraries have their gates."""

import ast
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "memarc"
FILES = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]

SHARED = {"typing", "batches", "gguf_header", "paths"}
"""Modules beside the packages; all may import them, and they import each other alone."""

FACE = pathlib.Path("__init__.py")
"""What a Python user asks for, imported when it is asked for."""

MAY_IMPORT = {
    "ops": set(),
    "models": {"ops"},
    "data": set(),
    "privacy": {"ops"},
    "report": set(),
    "training": {"privacy", "ops"},
    "evaluation": {"data", "models"},
    "measure": {"data", "models", "ops", "privacy", "training", "report", "runs"},
    "pretraining": {"data", "models", "report", "ops"},
    "runs": {"ops", "models", "data", "privacy", "report", "training", "evaluation"},
}

GATES = {  # Library -> the files that may import it.
    "transformers": {"data/tokenize.py", "data/gguf_tokenizer.py", "measure/peer.py"},
    "pyarrow": {"data/arrow_files.py"},
    "tensorflow_datasets": {"data/tfds_source.py"},
    "dp_accounting": {"privacy/accounting.py"},
    "jax_privacy": set(),
    "safetensors": {
        "models/peft_files.py",
        "models/pretrained.py",
        "models/tensor_files.py",
        "training/export.py",
    },
    "gguf": {"models/gguf_file.py"},
    "orbax": {"training/checkpoint.py"},
    "sklearn": {"evaluation/scores.py"},
    "sacrebleu": {"evaluation/text_scores.py", "evaluation/words.py"},
    "nltk": {"evaluation/text_scores.py"},
    "ml_collections": set(),
    "absl": set(),
    "tensorflow": set(),
    "torch": {"measure/peer.py"},
    "experiments": set(),
    "configs": set(),
}


def imports(path: pathlib.Path) -> Iterator[str]:
    """Dotted names that a file imports, at any depth."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def strays(path: pathlib.Path) -> list[str]:
    """What a file imports and may not; the face of the library reaches everywhere."""
    if path == FACE:
        return []
    package = path.parts[0] if len(path.parts) > 1 else ""  # Or a module beside the packages.
    allowed = SHARED | ({package} | MAY_IMPORT[package] if package else set())
    found = []
    for name in imports(path):
        library, *rest = name.split(".")
        if library == "memarc" and rest and rest[0] not in allowed:
            found.append(f"{path} imports {name}")
        if library in GATES and path.as_posix() not in GATES[library]:
            found.append(f"{path} imports {library}")
    return found


def test_imports_point_one_way():
    assert [stray for path in FILES for stray in strays(path)] == []


def test_init_files_are_one_docstring_every_package_has_a_rule_and_every_gate_is_used():
    for path in FILES:
        if path.name == "__init__.py" and path != FACE:
            body = ast.parse((PACKAGE / path).read_text(encoding="utf-8")).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), path
    assert {path.parts[0] for path in FILES if len(path.parts) > 1} == set(MAY_IMPORT)
    beside = {path.stem for path in FILES if len(path.parts) == 1}
    assert beside == SHARED | {"__init__"}
    for library, places in GATES.items():
        for place in places:
            names = {name.split(".")[0] for name in imports(pathlib.Path(place))}
            assert library in names, f"{place} no longer imports {library}"


def test_what_is_forbidden_is_found_out(tmp_path, monkeypatch):
    """Negative control: a package too high, a library outside its gate, a stray module."""
    monkeypatch.setattr("tests.test_layering.PACKAGE", tmp_path)
    (tmp_path / "ops").mkdir()
    given = {
        "ops/a.py": ("from memarc.models import head\n", "memarc.models.head"),
        "ops/b.py": ("def f():\n    import torch.nn\n", "torch"),
        "typing.py": ("import memarc.ops.uses\n", "memarc.ops.uses"),
        "ops/c.py": ("import experiments.run\n", "experiments"),
        "ops/d.py": ("from memarc import extras\n", "memarc.extras"),
    }
    for name, (text, stray) in given.items():
        (tmp_path / name).write_text(text)
        assert strays(pathlib.Path(name)) == [f"{name} imports {stray}"]
    (tmp_path / "ops" / "e.py").write_text("from memarc import batches\nfrom memarc.ops import a\n")
    assert strays(pathlib.Path("ops/e.py")) == []


def test_no_library_code_names_a_package_host():
    """Nor does any other file of the project."""
    for path in ROOT.rglob("*"):
        if path.suffix in (".py", ".cfg", ".toml", ".md", ".sh") and ".git" not in path.parts:
            assert "pypi." + "org" not in path.read_text(encoding="utf-8"), path


def test_the_walk_through_the_code_names_every_file():
    """A family is named by its folder, of which the walk opens one file."""
    walk = (ROOT / "docs" / "design.md").read_text()
    files = [x.relative_to(ROOT / "memarc") for x in (ROOT / "memarc").rglob("*.py")]
    files += [x.relative_to(ROOT) for x in (ROOT / "experiments").glob("*.py")]
    wanted = {str(x) for x in files if x.name != "__init__.py" and "families" not in x.parts}
    assert len(wanted) > 100 and not {name for name in wanted if f"`{name}`" not in walk}
