"""Reads GLUE's tab-separated files from a local folder, plain or gzip-compressed.

Format: UTF-8, no quoting, the first line names the columns. Spaces at a text's end are dropped
(GLUE leaves one after each SST-2 sentence).
"""

import gzip
import pathlib

import numpy as np

from memarc.data.rows import Rows
from memarc.data.tasks import Task


def read_split(task: Task, root: str, file_name: str) -> Rows:
    """Reads one labelled file of a task.

    Args:
      task: Names the columns and the labels.
      root: Folder that holds one folder per task.
      file_name: File in ``root/<task>``; with or without ".gz", either finds the compressed one.

    Returns:
      All rows of the file in its order.

    Raises:
      ValueError: If the folder, the file or a column is missing, or a line is broken.
    """
    path = _find(task, pathlib.Path(root).expanduser(), file_name)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        # newline="\n": texts may hold a lone carriage return, which is no line end here.
        with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
            return _parse(task, path, lines)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again.") from error


def _find(task, root, file_name):
    folder = root / task.name
    tried = [folder / file_name]
    if tried[0].suffix != ".gz":
        tried.append(folder / f"{file_name}.gz")
    for path in tried:
        if path.is_file():
            return path
    zip_name = task.archive.rsplit("/", 1)[-1]
    unpacked = zip_name.removesuffix(".zip").removesuffix("v2")
    names = " or ".join(path.name for path in tried)
    state = "has no such file" if folder.is_dir() else "does not exist"
    raise ValueError(
        f"Looked for {names} of task {task.name} in {folder}, which {state}. Set root and "
        f"train_file to where the files are, or get them: curl -LO {task.archive} && "
        f"unzip {zip_name} && mkdir -p {root} && mv {unpacked} {folder}"
    )


def _parse(task, path, lines):
    header = next(lines, "").rstrip("\r\n").split("\t")
    fields = (*task.text_fields, task.label_field)
    missing = [field for field in fields if field not in header]
    if missing:
        raise ValueError(
            f"{path}, line 1: no column {', '.join(missing)} among {', '.join(header)}; the first "
            f"line must name the columns {', '.join(fields)}."
        )
    places = [header.index(field) for field in task.text_fields]
    label_place = header.index(task.label_field)
    label_ids = {str(label): i for i, label in enumerate(task.labels)}
    columns = tuple([] for _ in places)
    labels = []
    for number, line in enumerate(lines, start=2):
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {number}: {len(cells)} cells where the header has {len(header)}; "
                "repair or remove the line."
            )
        label = label_ids.get(cells[label_place].strip())
        if label is None:
            raise ValueError(
                f"{path}, line {number}: label {cells[label_place]!r} is none of "
                f"{', '.join(label_ids)} (task {task.name}); repair or remove the line."
            )
        labels.append(label)
        for column, place in zip(columns, places, strict=True):
            column.append(cells[place].rstrip())
    return Rows(columns=columns, labels=np.asarray(labels, np.int32))
