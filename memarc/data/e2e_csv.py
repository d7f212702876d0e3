"""Reads the CSV files of the E2E challenge: meaning representations and reference texts.

Format: UTF-8, cells quoted as the csv module does, the first record names the columns; a text may
hold a line end. White space at a text's ends is dropped, and so are blank lines.

The meaning representation "name[Blue Spice], area[city centre]" becomes the input
"name : Blue Spice | area : city centre" (as in prefix-tuning, Li and Liang 2021): a byte-level
tokenizer then writes a value with the tokens that it has in a text, and copying is repeating them.
"""

import pathlib
import re
from collections.abc import Iterable

from memarc.data import delimited, text_files
from memarc.data.rows import Rows

_COLUMNS = ("mr", "ref")
_SLOT = re.compile(r"([^][,\s][^][]*)\[([^][]*)\](?:,\s*|$)")


def read_file(path: pathlib.Path) -> Rows:
    """Reads one file, plain or gzip-compressed.

    Args:
      path: From ``text_files.find``.

    Returns:
      All rows (inputs, targets) in the file's order.

    Raises:
      ValueError: If a column is missing, or a record is broken, lacks a text or has an mr that is
        none; named by the file and the line on which the record begins (texts may run over several
        lines).
    """
    with text_files.open_text(path, newline="") as lines:
        found = delimited.records(path, lines, **delimited.DIALECTS[".csv"])
        names, places = delimited.header(path, found, _COLUMNS)
        columns: dict[str, list[str]] = {column: [] for column in _COLUMNS}
        for line, cells in delimited.rows(path, found, names):
            for (column, texts), place in zip(columns.items(), places, strict=True):
                texts.append(cells[place].strip())
                if not texts[-1]:
                    raise ValueError(
                        f"{path}, line {line}: {column} is empty; fill in or remove the line."
                    )
            columns["mr"][-1] = _linearise(f"{path}, line {line}", columns["mr"][-1])
    return Rows(columns=(columns["mr"], columns["ref"]), labels=None)


def linearise(slots: Iterable[tuple[str, str]]) -> str:
    """(slot, value) pairs as the input of a model: "slot : value | slot : value"."""
    return " | ".join(f"{slot} : {value}" for slot, value in slots)


def _linearise(place: str, text: str) -> str:
    """The input of a model that an mr of the file becomes; ``place`` is for messages."""
    slots = _SLOT.findall(text)
    if not slots or _SLOT.sub("", text):
        raise ValueError(
            f"{place}: its mr is not of the form 'slot[value], slot[value]'; repair or remove the "
            "line."
        )
    return linearise(slots)
