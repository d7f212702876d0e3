"""How the pages of docs/ and the docstrings become one site.

    sphinx-build --fail-on-warning --keep-going --jobs=auto docs site

Needs the extra "docs". The pages docs/api/ are made anew from the packages at every build.
"""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))  # This tree's packages, installed or not.

project = "memarc"
author = "The memarc maintainers"
project_copyright = "The memarc maintainers"

extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["api/modules.rst"]

# Pages.
html_theme = "furo"
html_title = "memarc"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# Docstrings: every package is a page, every module a section of it.
apidoc_modules = [
    {
        "path": "../memarc",
        "destination": "api",
        "max_depth": 2,
        "module_first": True,
        "automodule_options": ["members", "show-inheritance"],
    }
]
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
    """Lets docstrings be read before napoleon does."""
    app.connect("autodoc-process-docstring", _plain, priority=400)


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
            plain = re.sub(r"([*|])", r"\\\1", part)
            is_glued = i > 0 and plain[:1].isalnum()  # A letter would keep code from ending.
            parts[i] = rf"\ {plain}" if is_glued else plain
    lines[:] = "".join(parts).split("\n")
