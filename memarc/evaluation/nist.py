"""NIST: matched n-grams weighted by how much their last word tells.

Source: Doddington 2002, "Automatic evaluation of machine translation quality using n-gram
co-occurrence statistics", equations 2 and 3.
"""

import math
from collections import Counter
from collections.abc import Sequence

from memarc.evaluation.words import ngram_counts

MAX_ORDER = 5
_BETA = math.log(2) / math.log(1.5) ** 2  # The penalty is 1/2 at two thirds of the length.

Words = Sequence[str]


def nist(outputs: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Scores a corpus, in bits: a sum over orders 1 to 5 of the mean information of an n-gram.

    Args:
      outputs: Words of each row's output.
      references: Words of each row's references, at least one.

    Returns:
      The score, at least 0; it has no fixed upper end, and grows with the references' vocabulary.
    """
    information = _information(references)
    score = 0.0
    for order in range(1, MAX_ORDER + 1):
        found = total = 0.0
        for output, row in zip(outputs, references, strict=True):
            counts = ngram_counts(output, order)
            total += counts.total()
            matched = counts & _most_of_each(row, order)
            found += sum(information[gram] * count for gram, count in matched.items())
        score += found / max(total, 1)
    return score * _length_penalty(outputs, references)


def _information(references: Sequence[Sequence[Words]]) -> dict[tuple[str, ...], float]:
    """Bits that the last word of each n-gram tells beyond the words before it (equation 2)."""
    seen: Counter[tuple[str, ...]] = Counter()
    for words in (words for row in references for words in row):
        seen[()] += len(words)  # What precedes a single word is the empty n-gram.
        for order in range(1, MAX_ORDER + 1):
            seen.update(ngram_counts(words, order))
    return {gram: math.log2(seen[gram[:-1]] / seen[gram]) for gram in seen if gram}


def _most_of_each(row: Sequence[Words], order: int) -> Counter[tuple[str, ...]]:
    """Gives, for each n-gram, the count in the reference that has most of it."""
    most: Counter[tuple[str, ...]] = Counter()
    for words in row:
        most |= ngram_counts(words, order)
    return most


def _length_penalty(outputs: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """1 for outputs as long as their references on average, else less (equation 3)."""
    expected = sum(sum(map(len, row)) / len(row) for row in references)
    ratio = sum(map(len, outputs)) / max(expected, 1)
    return math.exp(-_BETA * math.log(min(ratio, 1)) ** 2) if ratio else 0.0
