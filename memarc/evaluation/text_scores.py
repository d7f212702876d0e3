"""The scores of generated text by name, against several references a row.

Words are split as the official script of each score splits them (`memarc.evaluation.words`). The
E2E NLG challenge reports bleu_e2e, nist, rouge_l and cider, beside a METEOR that needs Java.
"""

import statistics
import types
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

from sacrebleu.metrics.bleu import BLEU

from memarc.evaluation.cider import cider
from memarc.evaluation.nist import nist
from memarc.evaluation.words import caption_words, mteval_words

Outputs = Sequence[str]
References = Sequence[Sequence[str]]

_RECALL_WEIGHT = 1.2  # The beta of ROUGE-L in the caption metrics.


def _bleu(outputs: Outputs, references: References, *, lowercase: bool) -> float:
    """Corpus BLEU of orders 1 to 4 with mteval-v13a's words, smoothing and closest lengths.

    That script, which scored the E2E challenge, ignores case. Its Python twin there (option -p)
    does not smooth, which shows only where some order has no match in the whole corpus. Outputs of
    which none has four words score 0.
    """
    columns = list(zip_longest(*references))  # The first reference of every row, the second, ...
    percent = BLEU(lowercase=lowercase, force=True).corpus_score(outputs, columns).score
    return min(percent / 100, 1.0)  # A mean of logarithms: a perfect one would be above 1.


def _nist(outputs: Outputs, references: References) -> float:
    """NIST with mteval-v13a's words, in bits, as the Python twin in E2E's scripts counts it.

    The Perl script there divides the references'
    length by the most references that any row has, so hardly any output is too short for it.
    """
    return nist(*_split(mteval_words, outputs, references))


def _cider(outputs: Outputs, references: References) -> float:
    """CIDEr-D of the caption metrics, in [0, 10]."""
    return cider(*_split(caption_words, outputs, references))


def _rouge_l(outputs: Outputs, references: References) -> float:
    """The caption metrics' ROUGE-L, a mean over rows.

    Precision and recall of the longest common subsequence are each the best over the references,
    which may be of two; recall weighs 1.2 squared as much.
    """
    return statistics.fmean(
        _row_rouge_l(output, row)
        for output, row in zip(*_split(caption_words, outputs, references), strict=True)
    )


def _row_rouge_l(output: Sequence[str], row: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of one row."""
    common = [_common_length(output, words) for words in row]
    precision = max(common) / max(len(output), 1)
    recall = max(length / max(len(words), 1) for length, words in zip(common, row, strict=True))
    weight = _RECALL_WEIGHT**2
    if not precision:
        return 0.0
    return (1 + weight) * precision * recall / (recall + weight * precision)


def _common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    # The length for the words of left so far with each prefix of right.
    lengths = [0] * (len(right) + 1)
    for mine in left:
        before = 0
        for place, other in enumerate(right, start=1):
            above = lengths[place]
            lengths[place] = before + 1 if mine == other else max(above, lengths[place - 1])
            before = above
    return lengths[-1]


def _meteor_exact_stem(outputs: Outputs, references: References) -> float:
    """METEOR of 2005 with its exact and stem modules alone: the best reference's, a mean over rows.

    This is not the METEOR that papers report: theirs matches synonyms from WordNet too. Version
    1.5, which E2E reports, paraphrases as well, and weighs all this so that its figures are about
    half.
    """
    from nltk.translate import meteor_score  # Takes a second to import.

    without_synonyms = types.SimpleNamespace(synsets=lambda word: ())  # Else WordNet is wanted.
    return statistics.fmean(
        meteor_score.meteor_score(row, output, wordnet=without_synonyms)  # pyright: ignore
        for output, row in zip(*_split(caption_words, outputs, references), strict=True)
    )


SCORES: Mapping[str, Callable[[Outputs, References], float]] = {
    "bleu": lambda outputs, references: _bleu(outputs, references, lowercase=False),
    "bleu_e2e": lambda outputs, references: _bleu(outputs, references, lowercase=True),
    "rouge_l": _rouge_l,
    "nist": _nist,
    "meteor_exact_stem": _meteor_exact_stem,
    "cider": _cider,
}


def score(names: Sequence[str], outputs: Outputs, references: References) -> dict[str, float]:
    """Scores generated texts against their references.

    Args:
      names: Names in `SCORES`.
      outputs: One text a row, at least one row; an empty text is legal, and matches nothing.
      references: Each row's references: one or more, their number may differ, none empty.

    Returns:
      Name -> score, in [0, 1] but for nist (0 and more) and cider ([0, 10]).

    Raises:
      ValueError: If a name is unknown, there are no rows or not as many of both, or a row's
        references are none, a single string, or hold an empty text.

    >>> score(("rouge_l",), ["the cat sat"], [["the cat sat", "a dog"]])
    {'rouge_l': 1.0}
    """
    unknown = sorted(set(names) - SCORES.keys())
    if unknown:
        raise ValueError(f"Unknown scores {unknown}; choose from {tuple(SCORES)}.")
    if len(outputs) != len(references) or not outputs:
        raise ValueError(
            f"There are {len(outputs)} outputs and {len(references)} rows of references; give as "
            "many of both, at least 1."
        )
    for index, row in enumerate(references):
        if isinstance(row, str) or not row or not all(text.strip() for text in row):
            raise ValueError(
                f"The references of row {index} are {row!r}; give a list of one text or more, "
                "none empty."
            )
    return {name: SCORES[name](outputs, references) for name in names}


def _split(
    split: Callable[[str], list[str]], outputs: Outputs, references: References
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Splits outputs and references into words."""
    return [split(text) for text in outputs], [[split(text) for text in row] for row in references]
