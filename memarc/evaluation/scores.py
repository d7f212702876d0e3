"""The scores of a classification task by name; computed by scikit-learn.

Axes: N rows.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np


def _accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The share of rows that are right."""
    from sklearn import metrics  # Seconds to import, and not needed before a run has ended.

    return float(metrics.accuracy_score(labels, predicted))


def _f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """F1 of class 1, as GLUE scores QQP; 0 where class 1 is neither present nor predicted."""
    from sklearn import metrics

    # scikit-learn's own annotation of this argument leaves its numbers out.
    return float(metrics.f1_score(labels, predicted, zero_division=0))  # pyright: ignore


SCORES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
}


def score(names: Sequence[str], labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Scores predictions against labels.

    Args:
      names: Names in `SCORES`.
      labels: int[N], N at least 1.
      predicted: int[N].

    Returns:
      Name -> score in [0, 1].

    Raises:
      ValueError: If a name is unknown, or there are no rows or not as many of both.

    >>> score(("accuracy",), np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
    {'accuracy': 0.75}
    """
    unknown = sorted(set(names) - SCORES.keys())
    if unknown:
        raise ValueError(f"Unknown scores {unknown}; choose from {tuple(SCORES)}.")
    if labels.shape != predicted.shape or labels.ndim != 1 or not labels.size:
        raise ValueError(
            f"labels are {labels.shape} and predictions {predicted.shape}; give two vectors of "
            "one length, at least 1."
        )
    return {name: SCORES[name](labels, predicted) for name in names}
