"""Reads columns of a user's own files, by the end of their names.

CSV (".csv", quoted as the csv module does, a text may run over lines), TSV (".tsv", without
quotes), JSON Lines (".jsonl"), each also with ".gz"; Parquet (".parquet"); a folder that
Hugging Face's ``Dataset.save_to_disk`` wrote; and "FOLDER:SPLIT" of a folder that
tensorflow-datasets prepared. Messages name file, line and column, and quote nothing that a row
holds.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from memarc import paths
from memarc.data import arrow_files, delimited, text_files, tfds_source

STREAM = "-"
"""Stands for standard input, of JSON Lines."""


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Columns of one file.

    Attributes:
      path: The file or folder, for messages.
      columns: Column -> its cells: texts, numbers, lists or None, as the file has them.
      lines: The line on which each row begins; of files without lines the row's number from 1.
      unit: "line", or "row" of files without lines.
    """

    path: str
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int]
    unit: str = "line"

    def refuse(self, column: str, is_bad: Sequence[bool], what: str) -> None:
        """Raises ValueError that names the lines of rows that are bad, if there are any."""
        bad = [str(line) for line, found in zip(self.lines, is_bad, strict=True) if found]
        if bad:
            raise ValueError(
                f"{self.path}, column {column}: {what} on {self.unit} {text_files.listed(bad)} "
                f"(of {len(self.lines)} rows); repair or remove them."
            )


def read(place: str, wanted: Sequence[str], encoding: str) -> Table:
    """Reads columns of a file.

    Args:
      place: The file, a folder, a folder with a split, or `STREAM`.
      wanted: Names of columns.
      encoding: Of text files.

    Returns:
      The columns, in the file's order of rows.

    Raises:
      ValueError: If the file is missing, of an unknown kind or broken, or lacks a column.
    """
    if place == STREAM:
        return _json_lines(pathlib.Path("standard input"), sys.stdin, wanted)
    path = paths.place(place)
    folder, _, split = place.rpartition(":")
    if split and folder and not path.exists() and paths.place(folder).is_dir():
        columns = tfds_source.columns(paths.place(folder), split, wanted)
        return _numbered(place, columns)
    if path.is_dir():
        return _numbered(place, arrow_files.read_folder(path, wanted))
    if not path.is_file():
        raise ValueError(f"There is no file or folder {path} (seen from {pathlib.Path.cwd()}).")
    ending = pathlib.Path(path.name.removesuffix(".gz")).suffix
    if ending == ".parquet":
        return _numbered(place, arrow_files.read_parquet(path, wanted))
    if ending not in (*delimited.DIALECTS, ".jsonl"):
        raise ValueError(
            f"{path} ends in {ending!r}; give a file that ends in .csv, .tsv, .jsonl (each also "
            "with .gz) or .parquet, a folder of datasets.Dataset.save_to_disk, or FOLDER:SPLIT of "
            "one that tensorflow-datasets prepared."
        )
    with text_files.open_text(path, newline="", encoding=encoding) as lines:
        if ending == ".jsonl":
            return _json_lines(path, lines, wanted)
        return _delimited(path, lines, wanted, delimited.DIALECTS[ending])


def _delimited(
    path: pathlib.Path, lines: TextIO, wanted: Sequence[str], dialect: Mapping[str, Any]
) -> Table:
    """The columns of an open CSV or TSV file."""
    found = delimited.records(path, lines, **dialect)
    names, places = delimited.header(path, found, wanted)
    numbers, cells = [], [[] for _ in wanted]
    for line, row in delimited.rows(path, found, names):
        numbers.append(line)
        for column, place in zip(cells, places, strict=True):
            column.append(row[place])
    return Table(str(path), dict(zip(wanted, cells, strict=True)), numbers)


def _json_lines(path: pathlib.Path, lines: TextIO, wanted: Sequence[str]) -> Table:
    """The columns of an open file that has a JSON object on each line."""
    numbers, columns, broken = [], {column: [] for column in wanted}, {}
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            found = _json_object(line, wanted)
            if isinstance(found, str):
                broken[number] = found
                continue
            numbers.append(number)
            for column, cells in columns.items():
                cells.append(found[column])
    except text_files.DAMAGE as error:
        raise ValueError(text_files.damage(path, error, number + 1)) from None
    if broken:
        first, *others = broken
        raise ValueError(f"{path}, line {first}{broken[first]}{text_files.likewise(others)}.")
    return Table(str(path), columns, numbers)


def _json_object(line: str, wanted: Sequence[str]) -> dict[str, Any] | str:
    """The object on a line, or what is wrong with the line, to be told behind its number."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:  # Its own text may quote the line.
        return f", column {error.colno}: this is not JSON; repair it"
    if not isinstance(record, dict):
        return f": this is a JSON {type(record).__name__}; give an object"
    for column in wanted:
        if column not in record:
            others = [name in record for name in wanted if name != column]
            listed = f" among {', '.join(record)}" if others and all(others) else ""
            needed = ", ".join(wanted)
            return f": the object has no field {column}{listed}; it needs {needed}"
    return record


def _numbered(place: str, columns: Mapping[str, Sequence[Any]]) -> Table:
    """The table of a file without lines."""
    rows = len(next(iter(columns.values())))
    return Table(place, columns, range(1, rows + 1), "row")
