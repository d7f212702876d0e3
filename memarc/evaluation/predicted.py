"""What a model said of rows, ready to be scored, and how far scores are off by which rows it was.

The standard error of a score is by the jackknife (Quenouille 1956; Efron and Stein 1981): rows are
dealt into groups, the score is taken without each group, and how much these differ tells how much
another set of rows would have changed it. It holds for scores that are no mean, such as BLEU.

Axes: N rows, G groups.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

GROUPS = 10
"""G at most; a score is taken so many times more."""


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of N rows.

    Attributes:
      rows: N.
      score: Scores some of the rows: ``(numbers of rows, increasing) -> name -> score``.
    """

    rows: int
    score: Callable[[np.ndarray], dict[str, float]]


Found = Mapping[str, Sequence[Predicted]]
"""Name of an evaluation set -> predictions: of its rows, or of texts and of references apart."""


def scores(found: Found) -> dict[str, float]:
    """Scores all rows: "set_score" -> value, in the order of the predictions."""
    return _named(found, lambda predicted: predicted.score(np.arange(predicted.rows)))


def standard_errors(found: Found) -> dict[str, float]:
    """The standard error of each of `scores`; those that are not finite are left out."""
    errors = _named(found, jackknife)
    return {name: error for name, error in errors.items() if math.isfinite(error)}


def jackknife(predicted: Predicted) -> dict[str, float]:
    """The standard error of each score by leaving out each of G groups of rows; NaN for one row.

    >>> mean = Predicted(3, lambda kept: {"mean": float(np.array([1.0, 2.0, 6.0])[kept].mean())})
    >>> round(jackknife(mean)["mean"] ** 2, 6)  # The variance, 7, over the rows.
    2.333333
    """
    groups = min(GROUPS, predicted.rows)
    if groups < 2:
        return dict.fromkeys(predicted.score(np.arange(predicted.rows)), math.nan)
    group_of = np.arange(predicted.rows) % groups
    without = [predicted.score(np.flatnonzero(group_of != group)) for group in range(groups)]
    with np.errstate(invalid="ignore"):  # Scores that are infinite have no variance.
        variances = {name: np.var([x[name] for x in without]) for name in without[0]}
    return {name: float(np.sqrt((groups - 1) * x)) for name, x in variances.items()}


def _named(found: Found, score: Callable[[Predicted], Mapping[str, float]]) -> dict[str, float]:
    """What a function says of all predictions, with the name of the set in front."""
    return {
        f"{split}_{name}": value
        for split, all_predicted in found.items()
        for predicted in all_predicted
        for name, value in score(predicted).items()
    }
