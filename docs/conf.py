"""How the pages of docs/ and the docstrings become one site.

    sphinx-build --fail-on-warning --keep-going --jobs=auto docs site

Needs the extra "docs". The pages docs/api/ are made anew from the packages at every build.
"""

import re
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "memarc"
sys.path.insert(0, str(PACKAGE.parent))  # This tree's packages, installed or not.

project = "memarc"
author = "The memarc maintainers"
project_copyright = "The memarc maintainers"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]

# Pages.
html_theme = "furo"
html_title = "memarc"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# Docstrings.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # A dataclass documents its fields itself; "attribute" would do so twice.
napoleon_custom_sections = [("Source", "notes_style")]
toc_object_entries = False  # A page's contents name its modules, which is quicker to build too.
default_role = "py:obj"  # `name` in a docstring: a link where there is such a name, else code.


_CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)


def setup(app: Sphinx) -> None:
    """Writes the pages of the API, and lets docstrings be read before napoleon does."""
    write_api(DOCS / "api")
    app.connect("autodoc-process-docstring", _plain, priority=400)


def write_api(folder: Path) -> None:
    """Writes a page for every package, with a section for every module: whatever there is now."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    packages = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
    for package in (PACKAGE, *packages):
        pages = [f"memarc.{child.name}" for child in packages if package == PACKAGE]
        name = _name(package)
        text = "\n".join([*_section(name, "="), *_contents(pages)])
        for module in sorted(package.glob("*.py")):
            if module.stem != "__init__":
                text += "\n".join(_section(_name(module.with_suffix("")), "-"))
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")


def _name(path: Path) -> str:
    """The dotted name of a package or module."""
    return ".".join(path.relative_to(PACKAGE.parent).parts)


def _section(name: str, line: str) -> list[str]:
    """A heading, and all that a package or module documents."""
    return [name, line * len(name), "", f".. automodule:: {name}", "   :members:", "", ""]


def _contents(pages: list[str]) -> list[str]:
    """A table of contents, or nothing."""
    return [".. toctree::", "", *(f"   {page}" for page in pages), "", ""] if pages else []


def _plain(
    app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]
) -> None:
    """Makes every sign of a docstring plain text, but for backticks, which mark code."""
    del app, what, name, documented, options
    parts = _CODE.split("\n".join(lines))
    for i, part in enumerate(parts):
        if i % 2:  # Code.
            parts[i] = re.sub(r"\s+``$", "``", part)
        else:
            plain = re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part)
            is_glued = i > 0 and plain[:1].isalnum()  # A letter would keep code from ending.
            parts[i] = rf"\ {plain}" if is_glued else plain
    lines[:] = "".join(parts).split("\n")
