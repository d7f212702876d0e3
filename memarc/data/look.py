"""What a data set's rows look like: counts that help to find mistakes, and are private.

No run computes them by itself: whoever asks for them sees private rows, and what is told of them is
covered by no guarantee.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from memarc.batches import CLASSIFICATION, INPUT_IDS
from memarc.data.dataset import Dataset
from memarc.data.load import Splits

NOT_PRIVATE = (
    "What follows is computed from private rows and is not private: do not publish it, and count "
    "what you choose by it as one more release."
)


def facts(splits: Splits) -> dict[str, dict[str, Any]]:
    """Counts of the train set and of every evaluation set.

    Returns:
      Name of the set -> units, rows, cut_rows, tokens (least, median and most of a row),
      rows_by_label in classification, and warnings.
    """
    sets = {"train": splits.train} | {name: x.dataset for name, x in splits.evals.items()}
    labels = len(splits.task.labels) if splits.task.labels else 0
    return {name: _of(dataset, labels) for name, dataset in sets.items()}


def _of(dataset: Dataset, classes: int) -> dict[str, Any]:
    """The facts of one set."""
    offsets, ids = dataset.encoded.offsets, dataset.encoded.tokens[INPUT_IDS]
    lengths = np.diff(offsets)
    rows = {ids[a:b].tobytes() for a, b in itertools.pairwise(offsets)}
    found: dict[str, Any] = {
        "units": len(dataset),
        "rows": len(lengths),
        "cut_rows": dataset.truncated_rows,
        "tokens": [int(np.quantile(lengths, q)) for q in (0, 0.5, 1)] if len(lengths) else [],
    }
    if dataset.kind == CLASSIFICATION and dataset.labels is not None:
        counts = np.bincount(dataset.labels, minlength=classes)
        found["rows_by_label"] = counts.tolist()
    return found | {"warnings": _warnings(found, len(rows))}


def _warnings(found: Mapping[str, Any], kinds: int) -> list[str]:
    """What is likely a mistake."""
    told = {
        "there is one row or none": found["rows"] < 2,
        "all rows are the same text, or empty": found["rows"] > 1 and kinds == 1,
        "all rows are cut to the longest length": 0 < found["rows"] == found["cut_rows"],
        "all rows have one label": found["rows"] > 1
        and np.count_nonzero(found.get("rows_by_label", [1, 1])) == 1,
    }
    return [text for text, is_so in told.items() if is_so]
