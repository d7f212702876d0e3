"""Columns of Parquet files, and of folders that Hugging Face's ``Dataset.save_to_disk`` wrote.

Both are read by pyarrow (extra "arrow"). Numbers that stand for names (``ClassLabel``) become the
names: these are part of a file's schema, not of its rows.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def read_parquet(path: pathlib.Path, wanted: Sequence[str]) -> dict[str, list[Any]]:
    """Reads columns of a Parquet file.

    Args:
      path: The file.
      wanted: Names of columns.

    Returns:
      Column -> its cells.

    Raises:
      ValueError: If the file cannot be read, lacks a column, or pyarrow is not there.
    """
    _arrow()
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
        _check_columns(path, schema, wanted)
        return _columns(parquet.read_table(path, columns=list(wanted)), wanted)
    except (OSError, *_errors()) as error:  # Its text may hold what it failed on.
        raise ValueError(f"{path} cannot be read as Parquet ({type(error).__name__}).") from None


def read_folder(path: pathlib.Path, wanted: Sequence[str]) -> dict[str, list[Any]]:
    """Reads columns of a folder that ``Dataset.save_to_disk`` wrote.

    Args:
      path: The folder of one set, such as DATASET/train.
      wanted: Names of columns.

    Returns:
      Column -> its cells.

    Raises:
      ValueError: If it is no such folder or damaged, it lacks a column, or pyarrow is not there.
    """
    if (path / _SPLITS).is_file():
        names = json.loads((path / _SPLITS).read_text(encoding="utf-8")).get("splits", [])
        raise ValueError(
            f"{path} holds several sets; give one of {[str(path / x) for x in names]}."
        )
    if not (path / _STATE).is_file():
        raise ValueError(
            f"{path} is a folder without {_STATE}: give one that datasets.Dataset.save_to_disk "
            "wrote, or FOLDER:SPLIT of one that tensorflow-datasets prepared."
        )
    pyarrow = _arrow()
    state = json.loads((path / _STATE).read_text(encoding="utf-8"))
    if state.get("_indices_data_files"):
        raise ValueError(f"{path} holds chosen rows only; save flatten_indices() of it.")
    tables = []
    try:
        for part in state["_data_files"]:
            with pyarrow.memory_map(str(path / part["filename"])) as file:
                tables.append(pyarrow.ipc.open_stream(file).read_all())
        whole = pyarrow.concat_tables(tables)
    except (OSError, KeyError, *_errors()) as error:
        raise ValueError(f"{path} cannot be read as a set ({type(error).__name__}).") from None
    _check_columns(path, whole.schema, wanted)
    return _columns(whole.select(list(wanted)), wanted)


def _arrow() -> Any:
    """The library; ValueError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise ValueError(
            "Parquet files and saved data sets need pyarrow; run: pip install 'memarc[arrow]'"
        ) from error
    return pyarrow


def _errors() -> tuple[type[Exception], ...]:
    """What the library raises for bad files."""
    return (_arrow().ArrowException,)


def _check_columns(path: pathlib.Path, schema: Any, wanted: Sequence[str]) -> None:
    """Raises ValueError where a schema lacks a column, naming those that it has."""
    missing = [column for column in wanted if column not in schema.names]
    if missing:
        raise ValueError(f"{path} has no column {missing}; its columns are {schema.names}.")


def _columns(table: Any, wanted: Sequence[str]) -> dict[str, list[Any]]:
    """The cells of each column, with names for numbers that stand for them."""
    named = dict(_class_names(table.schema.metadata or {}))
    found = {column: table.column(column).to_pylist() for column in wanted}
    for column in named.keys() & found.keys():
        names = named[column]
        found[column] = [
            names[x] if isinstance(x, int) and 0 <= x < len(names) else None for x in found[column]
        ]
    return found


def _class_names(metadata: Mapping[bytes, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Column and names of each ``ClassLabel`` that a schema states."""
    stated = json.loads(metadata.get(b"huggingface", b"{}"))
    for column, feature in stated.get("info", {}).get("features", {}).items():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            yield column, feature["names"]
