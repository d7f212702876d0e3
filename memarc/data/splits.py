"""Cuts one labelled train file into the paper's train, validation and test parts.

The paper (arXiv:2406.11087) trains on 50,000 rows, validates on 1,000 and tests on the rest.
"""

import dataclasses

import numpy as np

from memarc.data.rows import Rows

PAPER_TRAIN_ROWS = 50_000
PAPER_VALIDATION_ROWS = 1_000

PAPER_SEED = 240611087
"""Seed of the one permutation that every paper split is cut from; the paper names none."""


@dataclasses.dataclass(frozen=True, eq=False)
class PaperSplit:
    """Three parts without overlap that together are the whole file."""

    train: Rows
    validation: Rows
    test: Rows


def cut_paper_split(rows: Rows, *, train_rows: int, validation_rows: int, seed: int) -> PaperSplit:
    """Cuts labelled rows into train, validation and the rest.

    The permutation depends on the number of rows and the seed alone, never on their content.

    Args:
      rows: The whole labelled train file.
      train_rows: Size of the train part; ``PAPER_TRAIN_ROWS`` in the paper.
      validation_rows: Size of the validation part; ``PAPER_VALIDATION_ROWS`` in the paper.
      seed: ``PAPER_SEED`` unless another cut is wanted.

    Returns:
      The three parts; the test part has at least one row.

    Raises:
      ValueError: If a size is below one or the file has too few rows.
    """
    if train_rows < 1 or validation_rows < 1:
        raise ValueError(
            f"train_rows is {train_rows}, validation_rows {validation_rows}; give both at least 1."
        )
    needed = train_rows + validation_rows + 1
    if len(rows) < needed:
        raise ValueError(
            f"The train file has {len(rows)} rows; split='paper' needs at least {needed} "
            f"({train_rows} train, {validation_rows} validation, 1 test). Get the whole train file "
            "or set split='official'."
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    train, validation, test = np.split(order, [train_rows, train_rows + validation_rows])
    return PaperSplit(
        train=rows.take(train), validation=rows.take(validation), test=rows.take(test)
    )
