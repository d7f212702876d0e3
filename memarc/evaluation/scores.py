"""The scores of classification and regression by name; computed by scikit-learn and SciPy.

Axes: N rows, C classes.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np


def _accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The share of rows that are right."""
    from sklearn import metrics  # Seconds to import, and not needed before a run has ended.

    return float(metrics.accuracy_score(labels, probabilities.argmax(-1)))


def _f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """F1 of class 1, as GLUE scores QQP; 0 where class 1 is neither present nor predicted."""
    from sklearn import metrics

    # scikit-learn's own annotation of this argument leaves its numbers out.
    return float(metrics.f1_score(labels, probabilities.argmax(-1), zero_division=0))  # pyright: ignore


def _macro_f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean of F1 over all declared classes; 0 of a class neither present nor predicted."""
    from sklearn import metrics

    return float(
        metrics.f1_score(
            labels,
            probabilities.argmax(-1),
            labels=np.arange(probabilities.shape[1]),
            average="macro",
            zero_division=0,  # pyright: ignore
        )
    )


def _matthews(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Matthews' correlation, in [-1, 1]; 0 where all labels or all predictions are equal."""
    from sklearn import metrics

    return float(metrics.matthews_corrcoef(labels, probabilities.argmax(-1)))


def _auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The area under the ROC curve of class 1; NaN where only one class is present."""
    from sklearn import metrics

    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(metrics.roc_auc_score(labels, probabilities[:, 1]))


SCORES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "f1": _f1,
    "auc": _auc,
    "matthews": _matthews,
}


UNDEFINED = "undefined"
"""The share of rows without a prediction, as a score: exact streams left their range there."""


def undefined(predicted: np.ndarray) -> float:
    """The share of rows of predictions, float[N] or float[N, C], that hold a NaN.

    >>> undefined(np.array([[0.1, 0.9], [np.nan, np.nan]]))
    0.5
    """
    return float(np.isnan(predicted).reshape(len(predicted), -1).any(axis=1).mean())


def score(names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Scores predictions against labels.

    Args:
      names: Names in `SCORES`.
      labels: int[N], N at least 1.
      probabilities: float[N, C]. A row of NaN, for which there is no prediction, is counted as if
        it were sure of a wrong class.

    Returns:
      Name -> score.

    Raises:
      ValueError: If a name is unknown, or there are no rows or not as many of both.

    >>> score(("accuracy",), np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    {'accuracy': 0.5}
    """
    _check(names, SCORES, labels, probabilities[..., 0])
    classes = probabilities.shape[1]
    wrong = np.eye(classes)[(labels + 1) % classes]  # [N, C]
    undefined = np.isnan(probabilities).any(axis=1, keepdims=True)
    counted = np.where(undefined, wrong, probabilities)
    return {name: SCORES[name](labels, counted) for name in names}


def _pearson(values: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation; NaN where either is constant."""
    if not (np.ptp(values) and np.ptp(predicted)):
        return float("nan")
    return float(np.corrcoef(values, predicted)[0, 1])


def _spearman(values: np.ndarray, predicted: np.ndarray) -> float:
    """Spearman's rank correlation, equal numbers sharing their mean rank; NaN where constant."""
    from scipy import stats

    return _pearson(stats.rankdata(values), stats.rankdata(predicted))


def _rmse(values: np.ndarray, predicted: np.ndarray) -> float:
    """The root of the mean squared error, in the unit of the values."""
    return float(np.sqrt(np.mean((values - predicted) ** 2)))


NUMBER_SCORES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "pearson": _pearson,
    "spearman": _spearman,
    "rmse": _rmse,
}


def score_numbers(
    names: Sequence[str], values: np.ndarray, predicted: np.ndarray
) -> dict[str, float]:
    """Scores predicted numbers.

    Args:
      names: Names in `NUMBER_SCORES`.
      values: float[N], N at least 1.
      predicted: float[N]; a NaN makes all scores NaN.

    Returns:
      Name -> score.

    Raises:
      ValueError: If a name is unknown, or there are no rows or not as many of both.

    >>> score_numbers(("rmse",), np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    {'rmse': 1.0}
    """
    _check(names, NUMBER_SCORES, values, predicted)
    if np.isnan(predicted).any():
        return dict.fromkeys(names, float("nan"))
    return {name: NUMBER_SCORES[name](values, predicted) for name in names}


def _check(
    names: Sequence[str], known: Mapping[str, object], wanted: np.ndarray, given: np.ndarray
) -> None:
    """Raises ValueError for unknown names, and for rows that are not as many of both."""
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise ValueError(f"Unknown scores {unknown}; choose from {tuple(known)}.")
    if wanted.shape != given.shape or wanted.ndim != 1 or not wanted.size:
        raise ValueError(
            f"labels are {wanted.shape} and predictions {given.shape}; give as many of both, at "
            "least 1."
        )
