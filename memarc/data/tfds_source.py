"""Reads data sets through tensorflow-datasets; the only file that imports it.

``array_record`` is the one file format that is read without TensorFlow, by random access.
"""

import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from memarc import paths
from memarc.data.rows import Rows
from memarc.data.tasks import Task, TfdsNames

_FILE_FORMAT = "array_record"


def open_prepared(task: Task, folder: str) -> Callable[[str], Rows]:
    """Opens a prepared folder.

    Args:
      task: A GLUE task.
      folder: The folder that holds ``dataset_info.json``, e.g. ``.../glue/sst2/2.0.0``.

    Returns:
      A function from "train" or the name of an evaluation split to its rows.

    Raises:
      ValueError: If nothing readable was prepared there, or it is another task.
    """
    names = _names(task)
    path = paths.place(folder)
    if not (path / "dataset_info.json").is_file():
        raise ValueError(
            f"Looked for dataset_info.json of task {task.name} in {path} and found none. Set root "
            "to a prepared folder, or prepare one where there is a network: "
            f"source='tfds_download', which writes {names.builder}/<version> under its root."
        )
    import tensorflow_datasets as tfds  # Slow, and only this source needs it.

    return _opener(task, tfds.builder_from_directory(path))


def download(task: Task, folder: str) -> Callable[[str], Rows]:
    """Downloads and prepares a task unless that was done before. Needs a network.

    Args:
      task: A GLUE task.
      folder: Where tensorflow-datasets keeps its data.

    Returns:
      As ``open_prepared``.

    Raises:
      ValueError: If the download fails or a package that it needs is missing.
    """
    names = _names(task)
    if importlib.util.find_spec("importlib_resources") is None:
        raise ValueError(
            "tensorflow-datasets prepares data with the package importlib_resources, which it "
            "does not install by itself; run: pip install importlib_resources"
        )
    import tensorflow_datasets as tfds  # Slow, and only this source needs it.
    import tensorflow_datasets.text.glue  # Registers "glue"; without TensorFlow nothing else does.

    path = paths.place(folder)
    try:
        builder = tfds.builder(names.builder, data_dir=path, file_format=_FILE_FORMAT)
        builder.download_and_prepare()
    except Exception as error:  # The library and the network raise too many kinds to list.
        raise ValueError(
            f"Could not download {names.builder} into {path} ({error}). Check the network, or "
            "copy a prepared folder here and set source='tfds'."
        ) from error
    return _opener(task, builder)


def columns(folder: pathlib.Path, split: str, wanted: Sequence[str]) -> dict[str, list[Any]]:
    """Reads columns of any prepared folder.

    Args:
      folder: The folder that holds ``dataset_info.json``.
      split: The split's name there, such as "train".
      wanted: Names of features.

    Returns:
      Feature -> its values: texts, numbers, and names where numbers stand for them.

    Raises:
      ValueError: If nothing readable was prepared there, or the split or a feature is missing.
    """
    if not (folder / "dataset_info.json").is_file():
        raise ValueError(f"{folder} has no dataset_info.json: nothing was prepared there.")
    import tensorflow_datasets as tfds  # Slow, and only this source needs it.

    builder: Any = tfds.builder_from_directory(folder)
    _check_format(builder)
    features = builder.info.features
    missing = [name for name in wanted if name not in features]
    if missing or split not in builder.info.splits:
        raise ValueError(
            f"{folder} has the splits {list(builder.info.splits)} and the features "
            f"{list(features)}; wanted are {split!r} and {list(wanted)}."
        )
    names = {name: getattr(features[name], "names", None) for name in wanted}
    found = {name: [] for name in wanted}
    for row in builder.as_data_source(split):
        for name, values in found.items():
            values.append(_plain(row[name], names[name]))
    return found


def _plain(value: Any, names: Sequence[str] | None) -> Any:
    """A value as text or number, or the name that it stands for; None for an unknown name."""
    if names is not None:
        return names[int(value)] if 0 <= int(value) < len(names) else None
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if isinstance(value, np.generic) else value


def _names(task: Task) -> TfdsNames:
    """The names of a task there; ValueError if it has none."""
    if task.tfds is None:
        raise ValueError(
            f"Task {task.name} is not in tensorflow-datasets; set source to "
            f"{' or '.join(map(repr, task.sources))}."
        )
    return task.tfds


def _opener(task: Task, builder: Any) -> Callable[[str], Rows]:
    """Gives ``split -> rows`` of a builder that has prepared its data."""
    _check_format(builder)
    to_label = _label_map(task, builder)
    splits = {"train": "train", **_names(task).eval_splits}

    def read(split: str) -> Rows:
        return _read(task, builder, splits[split], to_label)

    return read


def _check_format(builder: Any) -> None:
    """Raises ValueError for a folder that only TensorFlow can read."""
    file_format = builder.info.file_format
    if file_format is None or file_format.value != _FILE_FORMAT:
        written = "unknown" if file_format is None else file_format.value
        raise ValueError(
            f"{builder.data_path} was prepared as {written}; prepare it again with "
            f"file_format={_FILE_FORMAT!r}, which alone is read without TensorFlow."
        )


def _label_map(task: Task, builder: Any) -> dict[int, int]:
    """Their label number -> ours; told apart by name, as their order may differ."""
    names = _names(task)
    features: Any = builder.info.features
    wanted = (*names.text_fields, "label")
    missing = [field for field in wanted if field not in features]
    if missing:
        raise ValueError(
            f"{builder.data_path} has no feature {', '.join(missing)} among {', '.join(features)}; "
            f"is it {names.builder}?"
        )
    theirs = features["label"].names
    if sorted(theirs) != sorted(names.labels):
        raise ValueError(
            f"{builder.data_path} has the labels {', '.join(theirs)}; {names.builder} has "
            f"{', '.join(names.labels)}."
        )
    return {i: names.labels.index(name) for i, name in enumerate(theirs)}


def _read(task: Task, builder: Any, split: str, to_label: dict[int, int]) -> Rows:
    """All rows of a split, called as there."""
    if split not in builder.info.splits:
        raise ValueError(
            f"{builder.data_path} has no split {split!r} among {', '.join(builder.info.splits)}; "
            f"task {task.name} needs it."
        )
    fields = _names(task).text_fields
    columns = tuple([] for _ in fields)
    labels = []
    for number, row in enumerate(builder.as_data_source(split)):
        label = to_label.get(int(row["label"]))
        if label is None:
            raise ValueError(
                f"{builder.data_path}, split {split}, row {number}: label {int(row['label'])} is "
                f"none of {', '.join(map(str, to_label))}; repair the data set."
            )
        labels.append(label)
        for column, field in zip(columns, fields, strict=True):
            column.append(row[field].decode("utf-8").rstrip())
    return Rows(columns=columns, labels=np.asarray(labels, np.int32))
