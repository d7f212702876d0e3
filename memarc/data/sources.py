"""Reads the rows of a task from where a config says that they are."""

from collections.abc import Mapping

from memarc import paths
from memarc.data import e2e_csv, glue_tsv, own_rows, text_files, tfds_source, triples_json
from memarc.data.config import DataConfig
from memarc.data.grammars import GRAMMARS
from memarc.data.rows import Rows
from memarc.data.tasks import Task


def read(task: Task, config: DataConfig) -> tuple[Rows, Mapping[str, Rows]]:
    """Reads all rows of a task.

    Args:
      task: The task's record.
      config: See ``config.check_fit``.

    Returns:
      The train rows, and name of an evaluation set -> its rows.

    Raises:
      ValueError: If files are missing or bad, or the source is "memory", which cannot be read.
    """
    if config.source == "memory":
        raise ValueError(
            "Rows of source 'memory' are not read from anywhere; give them to load.from_rows."
        )
    if config.source == "own":
        return own_rows.read(task, config)
    if config.source == "embedded":
        return _from_grammar(task, config)
    assert config.root is not None  # As ``check_fit`` has seen.
    if config.source == "files":
        train = _from_file(task, config, config.train_file or task.train_file)
        files = task.eval_files.items()
        return train, {name: _from_file(task, config, file) for name, file in files}
    opener = tfds_source.open_prepared if config.source == "tfds" else tfds_source.download
    rows_of = opener(task, config.root)
    return rows_of("train"), {name: rows_of(name) for name in task.eval_files}


def _from_grammar(task: Task, config: DataConfig) -> tuple[Rows, Mapping[str, Rows]]:
    """Gives train rows and evaluation sets that the task's grammar makes."""
    grammar = GRAMMARS[task.name]
    dev_rows = grammar.DEV_ROWS if config.dev_rows is None else config.dev_rows
    train = grammar.train_rows(config.train_rows, config.rows_seed)
    return train, {"dev": grammar.dev_rows(dev_rows, config.rows_seed)}


def _from_file(task: Task, config: DataConfig, file_name: str) -> Rows:
    """All rows of one file of a task."""
    root = config.root
    assert root is not None  # As ``check_fit`` has seen.
    if task.format == "tsv":
        return glue_tsv.read_split(task, root, file_name, drop_broken=config.drop_broken)
    folder = paths.place(root) / task.folder
    advice = f"Set root and train_file to where the files are, or get them from {task.origin}."
    path = text_files.find(folder, file_name, task=task.name, advice=advice)
    return e2e_csv.read_file(path) if task.format == "csv" else triples_json.read_file(path)
