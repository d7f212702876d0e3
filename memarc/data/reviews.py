"""A seeded grammar of short reviews with labels that no single word gives away.

A review's label (1 positive, 0 negative) is the polarity of its main clause. A negation flips an
adjective or a verb, and a contrast puts a clause of the other polarity before or after the main
one, so word order decides. Every form is drawn without regard to the label. Each sentence
belongs to one stream by a hash of its text: train, dev and public never share one, at any seed.
"""

import random
from collections.abc import Callable, Collection

import numpy as np

from memarc.data import tokenize
from memarc.data.draws import hundredth, pick, shuffle
from memarc.data.rows import Rows

_ASPECTS = (
    "food service staff room menu soup dessert coffee music plot acting ending story dialogue "
    "view breakfast garden wine cake kitchen script score camera bathroom"
).split()

_ADJECTIVES = {
    1: (
        "superb lovely charming excellent delightful wonderful brilliant fresh pleasant splendid "
        "elegant impressive friendly graceful tasty warm clever gentle bright enjoyable"
    ).split(),
    0: (
        "awful dreadful boring terrible stale clumsy dull horrid bland rude sloppy shabby "
        "tedious gloomy noisy cold lazy bitter weak annoying"
    ).split(),
}

_VERBS = {
    1: "enjoy love admire adore praise recommend".split(),
    0: "hate dislike regret loathe resent criticise".split(),
}

_COPULAS = ("was", "seemed", "felt", "became")
_DEGREES = ("", "", "very", "really", "quite", "rather")
_NEGATIONS = ("not", "hardly", "never", "far from", "anything but")
_SUBJECTS = ("we", "i", "they", "everyone")
_OPENERS = ("", "", "", "overall ,", "honestly ,", "to be fair ,", "this time ,", "in the end ,")
_CLOSERS = ("", "", "", "again", "last night", "as before", "for the price", "this week")

_CONCEDING = ("even though", "although", "while")
_TURNING = ("but", "yet")

DEV_ROWS = 1000
"""Held-out rows where a config names no number."""

_NEGATION_RATE = 0.3
_VERB_RATE = 0.25

_STREAMS = {"train": range(0, 40), "dev": range(40, 50), "public": range(50, 100)}
"""Stream -> the hundredths of the hash range whose sentences are its own."""

_TRIES_PER_ROW = 400
"""Draws per row before the stream counts as used up; a fresh one needs ten at most on average."""


def train_rows(count: int, seed: int) -> Rows:
    """Draws the private train rows.

    Args:
      count: Number of rows, all different; half of them positive (one more negative if odd).
      seed: Fixes the rows; the same on every machine.

    Returns:
      Rows with one text column, tokens separated by single spaces.

    Raises:
      ValueError: If ``count`` is negative or beyond what the grammar holds.
    """
    return _draw("train", count, seed)


def dev_rows(count: int, seed: int) -> Rows:
    """Draws held-out rows; as ``train_rows``, sharing no sentence with them."""
    return _draw("dev", count, seed)


def public_rows(count: int, seed: int) -> Rows:
    """Draws public rows for pre-training; shares no sentence with train or dev at any seed.

    They hold every form but a concession before the main clause ("although ... , ..."): what that
    does to a label is left for the private rows to teach. Args and errors as ``train_rows``.
    """
    return _draw("public", count, seed)


def vocabulary() -> tuple[str, ...]:
    """Every word that the grammar can write, sorted; public, as it is read off the grammar."""
    phrases = [
        *("the", "did not", ".", ",", "and"),
        *_ASPECTS,
        *(word for table in (_ADJECTIVES, _VERBS) for words in table.values() for word in words),
        *(_past(verb) for verbs in _VERBS.values() for verb in verbs),
        *_COPULAS,
        *_DEGREES,
        *_NEGATIONS,
        *_SUBJECTS,
        *_OPENERS,
        *_CLOSERS,
        *_CONCEDING,
        *_TURNING,
    ]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


def tokenizer() -> tokenize.Tokenizer:
    """The word-level tokenizer of ``vocabulary``."""
    return tokenize.word_level_tokenizer(vocabulary())


def _draw(stream: str, count: int, seed: int) -> Rows:
    """Draws so many rows from a named stream of random numbers."""
    if count < 0:
        raise ValueError(f"count is {count}; give a whole number from 0 up.")
    # random.Random: Python promises the same floats from one seed in all versions.
    rng = random.Random(f"{stream}/{seed}")
    labels = [1] * (count // 2) + [0] * (count - count // 2)
    shuffle(rng, labels)
    seen: dict[str, None] = {}
    for label in labels:
        seen[_new_sentence(rng, stream, label, seen)] = None
    return Rows(columns=(tuple(seen),), labels=np.asarray(labels, np.int32))


def _new_sentence(rng: random.Random, stream: str, label: int, seen: Collection[str]) -> str:
    """A sentence of a stream that is not in ``seen``."""
    for _ in range(_TRIES_PER_ROW):
        sentence = _review(rng, stream, label)
        if sentence not in seen and hundredth(sentence) in _STREAMS[stream]:
            return sentence
    raise ValueError(
        f"The reviews grammar found no new {stream} sentence after {len(seen)}; ask for fewer rows."
    )


def _review(rng: random.Random, stream: str, label: int) -> str:
    """One sentence whose main clause has polarity ``label``."""
    form: Callable = pick(rng, _FORMS[stream])
    words = [pick(rng, _OPENERS), *form(rng, label), pick(rng, _CLOSERS), "."]
    return " ".join(word for word in words if word)


def _clause(rng: random.Random, polarity: int) -> list[str]:
    """The words of one clause, negated or not: the shown word's polarity is then flipped."""
    negated = rng.random() < _NEGATION_RATE
    shown = 1 - polarity if negated else polarity
    aspect = pick(rng, _ASPECTS)
    if rng.random() < _VERB_RATE:
        verb = pick(rng, _VERBS[shown])
        said = f"did not {verb}" if negated else _past(verb)
        return [pick(rng, _SUBJECTS), said, "the", aspect]
    degree = pick(rng, _NEGATIONS) if negated else pick(rng, _DEGREES)
    return ["the", aspect, pick(rng, _COPULAS), degree, pick(rng, _ADJECTIVES[shown])]


def _past(verb: str) -> str:
    return f"{verb}d" if verb.endswith("e") else f"{verb}ed"


def _one(rng: random.Random, label: int) -> list[str]:
    return _clause(rng, label)


def _both(rng: random.Random, label: int) -> list[str]:
    return [*_clause(rng, label), "and", *_clause(rng, label)]


def _concession_first(rng: random.Random, label: int) -> list[str]:
    return [pick(rng, _CONCEDING), *_clause(rng, 1 - label), ",", *_clause(rng, label)]


def _concession_last(rng: random.Random, label: int) -> list[str]:
    return [*_clause(rng, label), ",", pick(rng, _CONCEDING), *_clause(rng, 1 - label)]


def _turn(rng: random.Random, label: int) -> list[str]:
    return [*_clause(rng, 1 - label), ",", pick(rng, _TURNING), *_clause(rng, label)]


_ALL_FORMS = (_one, _one, _one, _both, _concession_first, _concession_last, _turn)
_PUBLIC_FORMS = tuple(form for form in _ALL_FORMS if form is not _concession_first)

_FORMS = {"train": _ALL_FORMS, "dev": _ALL_FORMS, "public": _PUBLIC_FORMS}
"""Drawn evenly; of all forms 3/7 are one clause, 1/7 two agreeing clauses, 3/7 a contrast."""
