"""Records of text files whose cells stand between delimiters: CSV with its quotes, and TSV.

Nothing of a record is quoted in a message, as it may be private.
"""

import csv
import difflib
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from memarc.data import text_files

Record = tuple[int, list[str]]
"""The line on which a record begins, and its cells."""

DIALECTS: dict[str, dict[str, Any]] = {
    ".csv": {"delimiter": ",", "strict": True},
    ".tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
}
"""How a file's name ends -> what the csv module is told."""


def records(path: pathlib.Path, lines: TextIO, **dialect: Any) -> Iterator[Record]:
    """Yields the records of an open file, the header first; blank lines are left out.

    Args:
      path: The file, for messages.
      lines: The file, opened with newline "".
      **dialect: What `csv.reader` is told; see `DIALECTS`.

    Raises:
      ValueError: If quotes do not close, or the bytes are bad.
    """
    csv.field_size_limit(sys.maxsize)  # A text may be long; the module's limit is 128 KiB.
    reader = csv.reader(lines, **dialect)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {line}: the record that begins here cannot be read ({error}); close "
                "and double its quotes."
            ) from None
        except text_files.DAMAGE as error:
            raise ValueError(text_files.damage(path, error, line)) from None
        if cells is None:
            return
        if cells:  # Else a blank line.
            yield line, cells


def header(
    path: pathlib.Path, found: Iterator[Record], wanted: Sequence[str]
) -> tuple[list[str], list[int]]:
    """Takes the header off records, and finds columns in it.

    A file may lack a header, and its first record be private: no cell of it is quoted but one that
    is spelled nearly as a column that is wanted, unless all other columns that are wanted are
    there, so that it is a header.

    Returns:
      The names of all columns, and the places of those that are wanted.

    Raises:
      ValueError: If a column that is wanted is not there, or there twice.
    """
    line, names = next(found, (1, []))
    for column in wanted:
        if names.count(column) != 1:
            spelled = {name.strip().lower(): name for name in names}
            near = difflib.get_close_matches(column.lower(), spelled, 1, cutoff=0.8)
            hint = f" (did you mean {spelled[near[0]]!r}?)" if near and column not in names else ""
            others = [names.count(name) for name in wanted if name != column]
            listed = f" ({', '.join(names)})" if others and set(others) == {1} else ""
            raise ValueError(
                f"{path}, line {line}: {names.count(column) or 'no'} column {column}{hint} among "
                f"the {len(names)} columns there{listed}; the first line must name the columns "
                f"{', '.join(wanted)}, once each."
            )
    return names, [names.index(column) for column in wanted]


def rows(path: pathlib.Path, found: Iterator[Record], names: Sequence[str]) -> Iterator[Record]:
    """Yields the records after a header.

    Raises:
      ValueError: After the last record, if some have not as many cells as the header.
    """
    wrong = {}
    for line, cells in found:
        if len(cells) == len(names):
            yield line, cells
        else:
            wrong[line] = len(cells)
    if wrong:
        first, *others = wrong
        raise ValueError(
            f"{path}, line {first}: {wrong[first]} cells where the header has {len(names)}; repair "
            f"or remove the line{text_files.likewise(others)}."
        )
