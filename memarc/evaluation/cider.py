"""CIDEr: likeness to each reference, in n-grams that are rare among the rows.

Source: Vedantam et al. 2015, arXiv:1411.5726, the variant CIDEr-D, which the MS-COCO caption
metrics report as CIDEr.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from memarc.evaluation.words import ngram_counts

MAX_ORDER = 4
_SIGMA = 6.0  # Words; the width of the penalty for another length than the reference's.

Words = Sequence[str]
Vector = Mapping[tuple[str, ...], float]


def cider(outputs: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Scores a corpus: the mean over rows, and over each row's references, of the likeness.

    An n-gram that every row has weighs nothing, so a corpus of one row scores 0.

    Args:
      outputs: Words of each row's output.
      references: Words of each row's references, at least one.

    Returns:
      The score in [0, 10].
    """
    score = 0.0
    for order in range(1, MAX_ORDER + 1):
        rows_with = _rows_with_each(references, order)
        for output, row in zip(outputs, references, strict=True):
            mine = _vector(output, order, rows_with, len(outputs))
            for words in row:
                likeness = _likeness(mine, _vector(words, order, rows_with, len(outputs)))
                gap = len(output) - len(words)
                score += likeness * math.exp(-(gap**2) / (2 * _SIGMA**2)) / len(row)
    return 10 * score / (MAX_ORDER * len(outputs))


def _rows_with_each(references: Sequence[Sequence[Words]], order: int) -> Counter[tuple[str, ...]]:
    """Counts, for each n-gram, the rows that have it in any reference."""
    rows_with: Counter[tuple[str, ...]] = Counter()
    for row in references:
        rows_with.update({gram for words in row for gram in ngram_counts(words, order)})
    return rows_with


def _vector(words: Words, order: int, rows_with: Counter[tuple[str, ...]], rows: int) -> Vector:
    """Counts times log-rarity; an n-gram of no row is as rare as one of a single row."""
    counts = ngram_counts(words, order)
    return {
        gram: count * math.log(rows / max(rows_with[gram], 1)) for gram, count in counts.items()
    }


def _likeness(mine: Vector, other: Vector) -> float:
    """The cosine of two vectors, where no n-gram of mine counts for more than the other has."""
    product = sum(min(mine[gram], other[gram]) * other[gram] for gram in mine if gram in other)
    return product / (math.hypot(*mine.values()) * math.hypot(*other.values())) if product else 0.0
