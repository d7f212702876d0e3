"""The embedded reviews are balanced, held out properly and not solvable word by word."""

import re

import numpy as np
import pytest

from memarc.data import reviews

SEED = 0

GOLDEN = (
    "while they adored the view , the room was really bland .",
    "overall , even though the wine was hardly annoying , the dessert was never superb .",
    "honestly , the garden felt very gentle and the coffee was graceful last night .",
)
"""The first train rows at seed 0; they change only with a deliberate change of the grammar."""


@pytest.fixture(scope="module")
def train():
    return reviews.train_rows(6000, SEED)


@pytest.fixture(scope="module")
def dev():
    return reviews.dev_rows(1000, SEED)


def presence(rows):
    """bool[N, V]: which words of the vocabulary each row has."""
    place = {word: i for i, word in enumerate(reviews.vocabulary())}
    found = np.zeros((len(rows), len(place)), bool)
    for i, sentence in enumerate(rows.columns[0]):
        found[i, [place[word] for word in sentence.split()]] = True
    return found


def naive_bayes_accuracy(train, dev):
    """Dev accuracy of Bernoulli naive Bayes with add-one smoothing."""
    found, labels = presence(train), train.labels
    rates = [(found[labels == c].sum(0) + 1) / ((labels == c).sum() + 2) for c in (0, 1)]
    seen = presence(dev)
    scores = [seen @ np.log(rate) + ~seen @ np.log1p(-rate) for rate in rates]
    return np.mean((scores[1] > scores[0]) == dev.labels)


def best_keyword_accuracy(rows):
    """Best accuracy of "positive if (or unless) this word occurs", over all words."""
    right = (presence(rows) == rows.labels[:, None]).mean(0)
    return max(right.max(), 1 - right.min())


def test_no_single_keyword_reaches_65_percent(dev):
    assert best_keyword_accuracy(dev) < 0.65  # 0.52 when written.


def test_bags_of_words_stay_well_below_perfect(train, dev):
    assert naive_bayes_accuracy(train, dev) < 0.75  # 0.67 when written.
    inputs = [np.c_[presence(rows), np.ones(len(rows))].astype(float) for rows in (train, dev)]
    weights = np.linalg.lstsq(inputs[0], 2.0 * train.labels - 1.0, rcond=None)[0]
    assert np.mean((inputs[1] @ weights > 0) == dev.labels) < 0.75  # 0.67 when written.


def test_the_two_checks_above_do_catch_a_grammar_without_negation_and_contrast(monkeypatch):
    monkeypatch.setattr(reviews, "_NEGATION_RATE", 0.0)
    monkeypatch.setattr(reviews, "_FORMS", dict.fromkeys(("train", "dev"), (reviews._one,)))
    easy_train, easy_dev = reviews.train_rows(900, SEED), reviews.dev_rows(300, SEED)
    assert naive_bayes_accuracy(easy_train, easy_dev) > 0.95
    monkeypatch.setattr(reviews, "_ADJECTIVES", {1: ["superb"], 0: ["awful"]})
    monkeypatch.setattr(reviews, "_VERB_RATE", 0.0)
    assert best_keyword_accuracy(reviews.dev_rows(300, SEED)) == 1.0


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_half_of_the_rows_are_positive(count):
    rows = reviews.train_rows(count, SEED)
    assert len(rows) == count
    assert rows.labels.dtype == np.int32
    assert rows.labels.sum() == count // 2


def test_no_sentence_occurs_twice_within_or_across_streams_at_any_seed(train, dev):
    public = reviews.public_rows(3000, 5)
    other_train = reviews.train_rows(2000, 3)
    assert len(set(train.columns[0])) == 6000
    assert len(set(public.columns[0])) == 3000
    private = {*train.columns[0], *other_train.columns[0]}
    assert private.isdisjoint(dev.columns[0])
    assert private.isdisjoint(public.columns[0])
    assert set(dev.columns[0]).isdisjoint(public.columns[0])


def test_a_concession_comes_before_the_main_clause_in_private_rows_alone(train):
    opener = "|".join(filter(None, reviews._OPENERS))
    first = re.compile(rf"(({opener}) )?({'|'.join(reviews._CONCEDING)}) ")

    def share(rows):
        return np.mean([bool(first.match(text)) for text in rows.columns[0]])

    assert share(reviews.public_rows(3000, 5)) == 0.0
    assert share(train) == pytest.approx(1 / 7, abs=0.02)


@pytest.mark.parametrize("draw", [reviews.train_rows, reviews.dev_rows, reviews.public_rows])
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(draw):
    first, again, other = draw(50, 2), draw(50, 2), draw(50, 4)
    assert first.columns == again.columns
    assert np.array_equal(first.labels, again.labels)
    assert first.columns != other.columns


def test_rows_are_those_of_every_machine():
    rows = reviews.train_rows(3, 0)
    assert rows.columns[0] == GOLDEN
    assert rows.labels.tolist() == [0, 0, 1]


def test_the_word_list_is_small_sorted_and_exactly_what_is_written(train):
    words = reviews.vocabulary()
    assert list(words) == sorted(set(words))
    assert 100 <= len(words) <= 200
    assert {word for sentence in train.columns[0] for word in sentence.split()} == set(words)


def test_sentences_have_five_to_two_dozen_words(train):
    lengths = [len(sentence.split()) for sentence in train.columns[0]]
    assert min(lengths) >= 5
    assert max(lengths) <= 24


class Scripted:
    """Stands for the random numbers, so that a test can write the sentence it wants."""

    def __init__(self, *numbers):
        self._numbers = list(numbers)

    def random(self):
        return self._numbers.pop(0)


@pytest.mark.parametrize(
    ("numbers", "polarity", "clause"),
    [
        ((0.9, 0.0, 0.9, 0.0, 0.0, 0.0), 1, "the food was superb"),
        ((0.9, 0.0, 0.9, 0.0, 0.0, 0.0), 0, "the food was awful"),
        ((0.1, 0.0, 0.9, 0.0, 0.0, 0.0), 1, "the food was not awful"),
        ((0.1, 0.0, 0.9, 0.99, 0.0, 0.0), 0, "the food was anything but superb"),
        ((0.9, 0.0, 0.1, 0.0, 0.0), 1, "we enjoyed the food"),
        ((0.1, 0.0, 0.1, 0.0, 0.0), 1, "we did not hate the food"),
    ],
)
def test_a_negated_clause_shows_the_word_of_the_other_polarity(numbers, polarity, clause):
    words = reviews._clause(Scripted(*numbers), polarity)
    assert " ".join(word for word in words if word) == clause


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        (reviews._one, "1"),
        (reviews._both, "1 and 1"),
        (reviews._concession_first, "although 0 , 1"),
        (reviews._concession_last, "1 , although 0"),
        (reviews._turn, "0 , but 1"),
    ],
)
def test_the_main_clause_has_the_label_whatever_its_place(monkeypatch, form, sentence):
    monkeypatch.setattr(reviews, "_clause", lambda rng, polarity: [str(polarity)])
    monkeypatch.setattr(reviews, "_CONCEDING", ("although",))
    monkeypatch.setattr(reviews, "_TURNING", ("but",))
    assert " ".join(form(Scripted(0.0, 0.0), 1)) == sentence
    flipped = sentence.translate({ord("0"): "1", ord("1"): "0"})
    assert " ".join(form(Scripted(0.0, 0.0), 0)) == flipped


def test_negative_counts_and_counts_beyond_the_grammar_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="count is -1"):
        reviews.dev_rows(-1, SEED)
    monkeypatch.setattr(reviews, "_STREAMS", {"public": range(100)})
    monkeypatch.setattr(reviews, "_review", lambda rng, stream, label: "the food was superb .")
    with pytest.raises(ValueError, match="no new public sentence after 1; ask for fewer"):
        reviews.public_rows(2, SEED)
