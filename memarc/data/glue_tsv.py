"""Reads GLUE's tab-separated files from a local folder, plain or gzip-compressed.

Format: UTF-8, no quoting, the first line names the columns. Spaces at a text's end are dropped
(GLUE leaves one after each SST-2 sentence). Messages quote nothing of a line: it may be private.

A line is broken if it has not as many cells as the header, or a label that is none of the task's
(as a few of QQP's are). The rule is public and looks at one line alone, so that leaving broken
lines out keeps neighbouring files neighbours.
"""

import logging
import pathlib
from collections.abc import Iterator

import numpy as np

from memarc import paths
from memarc.data import text_files
from memarc.data.rows import Rows
from memarc.data.tasks import Task

_LOGGER = logging.getLogger(__name__)

_SHOWN = 5
"""Broken lines that a message tells of one by one."""


def read_split(task: Task, root: str, file_name: str, *, drop_broken: bool) -> Rows:
    """Reads one labelled file of a task.

    Args:
      task: Names the columns and the labels.
      root: Folder that holds one folder per task.
      file_name: File in the task's folder; with or without ".gz", either finds the compressed one.
      drop_broken: Whether broken lines are left out, rather than refused.

    Returns:
      All rows of the file in its order.

    Raises:
      ValueError: If the folder, the file or a column is missing, or lines are broken.
    """
    folder = paths.place(root) / task.folder
    path = text_files.find(folder, file_name, task=task.name, advice=_advice(task, root, folder))
    try:
        # newline="\n": texts may hold a lone carriage return, which is no line end here.
        with text_files.open_text(path, newline="\n") as lines:
            rows, broken = _parse(task, path, lines)
    except text_files.DAMAGE as error:
        raise ValueError(text_files.damage(path, error, 1)) from None
    if broken:
        told = f"{path} has broken lines, {len(broken)} of {len(rows) + len(broken)}"
        if not drop_broken:
            shown = "; ".join((*broken[:_SHOWN], *(["..."] if len(broken) > _SHOWN else [])))
            raise ValueError(
                f"{told}: {shown}. Repair or remove them, or leave them out by "
                "data.drop_broken=True."
            )
        _LOGGER.warning("%s, which are left out.", told)
    return rows


def _advice(task: Task, root: str, folder: pathlib.Path) -> str:
    """Commands that put the task's files into its folder, as a sentence."""
    zip_name = task.archive.rsplit("/", 1)[-1]
    unpacked = zip_name.removesuffix(".zip").removesuffix("v2")
    return (
        f"Set root and train_file to where the files are, or get them: curl -LO {task.archive} && "
        f"unzip {zip_name} && mkdir -p {root} && mv {unpacked} {folder}"
    )


def _parse(task: Task, path: pathlib.Path, lines: Iterator[str]) -> tuple[Rows, list[str]]:
    """The rows that the lines of a file hold, and what is wrong with each line that is broken."""
    header = next(lines, "").rstrip("\r\n").split("\t")
    fields = (*task.text_fields, task.label_field)
    missing = [field for field in fields if field not in header]
    if missing:
        raise ValueError(
            f"{path}, line 1: no column {', '.join(missing)} among the {len(header)} columns "
            f"there; the first line must name the columns {', '.join(fields)}."
        )
    places = [header.index(field) for field in task.text_fields]
    label_place = header.index(task.label_field)
    label_ids = {str(label): i for i, label in enumerate(task.labels)}
    columns = tuple([] for _ in places)
    labels, broken = [], []
    for number, line in enumerate(lines, start=2):
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != len(header):
            broken.append(f"line {number}: {len(cells)} cells where the header has {len(header)}")
            continue
        label = label_ids.get(cells[label_place].strip())
        if label is None:
            wanted = f"{', '.join(label_ids)} (task {task.name})"
            broken.append(f"line {number}: the label is none of {wanted}")
            continue
        labels.append(label)
        for column, place in zip(columns, places, strict=True):
            column.append(cells[place].rstrip())
    return Rows(columns=columns, labels=np.asarray(labels, np.int32)), broken
