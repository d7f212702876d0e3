"""Text scores by hand, by figures that the E2E challenge printed, and by what they ignore."""

import math

import pytest
from nltk.translate import nist_score

from memarc.evaluation import text_scores, words
from memarc.report import tables

ALL = tuple(text_scores.SCORES)

OUTPUTS = [
    "The Punter is a cheap pub near Café Sicilia.",
    "Cocum is a family-friendly coffee shop, it costs £20-25.",
    "By the river you will find a restaurant named Aromi.",
    "Strada has low customer ratings.",
]
REFERENCES = [
    ["The Punter, near Café Sicilia, is a cheap pub.", "A cheap pub is The Punter."],
    ["Cocum is a family-friendly coffee shop where a meal costs £20-25."],
    ["A restaurant by the river is Aromi.", "By the river is Aromi.", "Aromi, by the river."],
    ["Strada has a low customer rating.", "Customers rate Strada low."],
]


def score(name, outputs, references):
    return text_scores.score((name,), outputs, references)[name]


# BLEU ---------------------------------------------------------------------------------------------


def test_bleu_is_that_computed_by_hand():
    # Of 6, 5, 4, 3 n-grams match 5 (not "sat"), 3 (the cat, on the, the mat), 1 (on the mat) and
    # none, which is smoothed to 1/2. The lengths are equal: no penalty.
    found = score("bleu", ["the cat sat on the mat"], [["the cat is on the mat"]])
    assert found == pytest.approx((5 / 6 * 3 / 5 * 1 / 4 * (1 / 2) / 3) ** (1 / 4))


def test_bleu_clips_and_takes_the_closest_length_as_in_papineni_2002():
    # Example 2 there: "the" is worth the two of the first reference, by case-blind count. The
    # second reference is as long as the output. No longer n-gram matches: 1/2, 1/4, 1/8.
    output, row = (
        "the the the the the the the",
        ["The cat is on the mat", "There is a cat on the mat"],
    )
    smoothed = (1 / 2) / 6 * (1 / 4) / 5 * (1 / 8) / 4
    assert score("bleu_e2e", [output], [row]) == pytest.approx((2 / 7 * smoothed) ** (1 / 4))
    assert score("bleu", [output], [row]) == pytest.approx((1 / 7 * smoothed) ** (1 / 4))


def test_a_perfect_bleu_is_1_and_not_more():
    texts = ["the cat sat on the mat today", "a b c d e f g", "one two three four five"]
    for count in (1, 2, 3):
        assert score("bleu", texts[:count], [[text] for text in texts[:count]]) == 1.0


@pytest.mark.parametrize("name", ["bleu", "bleu_e2e"])
def test_bleu_penalises_brevity_over_the_whole_corpus(name):
    # Lengths 4 and 5 against 6 and 4: the second row's surplus word makes up for one that lacks.
    found = score(name, ["a b c d", "a b c d e"], [["a b c d e f"], ["a b c d", "x y z"]])
    assert found == pytest.approx(math.exp(1 - 10 / 9) * (8 / 9 * 6 / 7 * 4 / 5 * 2 / 3) ** (1 / 4))


# ROUGE-L ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [("police kill the gunman", 3 / 4), ("the gunman kill police", 2 / 4)],
)
def test_rouge_l_is_that_of_lin_2004(output, expected):
    assert score("rouge_l", [output], [["police killed the gunman"]]) == pytest.approx(expected)


def test_rouge_l_takes_precision_and_recall_from_different_references():
    # "a b": precision 2/4, recall 1. "a b c x y z": precision 3/4, recall 1/2.
    found = score("rouge_l", ["a b c d"], [["a b", "a b c x y z"]])
    assert found == pytest.approx((1 + 1.44) * 0.75 * 1 / (1 + 1.44 * 0.75))


# NIST ---------------------------------------------------------------------------------------------


def test_nist_is_that_computed_by_hand():
    # Of six reference words "a" is three (1 bit), "b" two, "c" one. After "a" comes "b" in two of
    # three (log2 3/2 bits). The output's 3 words are a, b, c; of its bigrams "a b" matches.
    one_word = (math.log2(6 / 3) + math.log2(6 / 2) + math.log2(6 / 1)) / 3
    found = score("nist", ["a b c"], [["a b a", "c a b"]])
    assert found == pytest.approx(one_word + math.log2(3 / 2) / 2)


def test_nist_halves_at_two_thirds_of_the_mean_length():
    # References of 2 and 4 words; each word is 1/6 of them but "a" and "b", which are 2/6.
    assert score("nist", ["a b"], [["a b", "a b c d"]]) == pytest.approx(math.log2(3) / 2)


def test_nist_is_nltks_where_each_row_has_one_reference():
    """With several, that one takes the best reference; the official script merges them."""
    rows = [row[:1] for row in REFERENCES]
    expected = nist_score.corpus_nist(
        [[words.mteval_words(row[0])] for row in rows],
        [words.mteval_words(output) for output in OUTPUTS],
    )
    assert score("nist", OUTPUTS, rows) == pytest.approx(expected)


# METEOR -------------------------------------------------------------------------------------------


def test_meteor_is_that_of_banerjee_and_lavie_2005():
    # The example there of two chunks, "the president" and "spoke to the audience", 6 words of 7.
    mean = 10 * (6 / 7) * 1 / (1 + 9 * (6 / 7))
    output, reference = (
        "the president then spoke to the audience",
        "the president spoke to the audience",
    )
    found = score("meteor_exact_stem", [output], [[reference]])
    assert found == pytest.approx(mean * (1 - 0.5 * (2 / 6) ** 3))


def test_meteor_matches_stems_but_no_synonyms():
    stem = score("meteor_exact_stem", ["he rated shops"], [["he rates shop"]])
    assert stem == pytest.approx(1 - 0.5 * (1 / 3) ** 3)
    assert score("meteor_exact_stem", ["big"], [["large"]]) == 0


# CIDEr --------------------------------------------------------------------------------------------


def test_cider_is_that_computed_by_hand():
    # Row 1: cosines 1 of words and of word pairs, and no longer n-grams. Row 2: one of two words
    # is shared, all of one weight, and no pair. A mean over four orders, times 10.
    found = score("cider", ["a b", "a d"], [["a b"], ["c d"]])
    assert found == pytest.approx(10 * ((1 + 1) / 4 + (1 / 2) / 4) / 2)


def test_cider_ignores_what_every_row_has_and_penalises_length():
    # "the" weighs nothing, so one word decides; the word that lacks costs exp(-1 / (2 * 36)).
    found = score("cider", ["x", "y"], [["the x"], ["the y"]])
    assert found == pytest.approx(10 / 4 * math.exp(-1 / 72))


def test_cider_and_rouge_l_are_those_of_the_caption_metrics():
    """On the same words; theirs are split in Java."""
    theirs = pytest.importorskip("pycocoevalcap.cider.cider_scorer").CiderScorer()
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge()
    joined = lambda text: " ".join(words.caption_words(text))
    of_rouge = 0.0
    for output, row in zip(OUTPUTS, REFERENCES, strict=True):
        theirs += (joined(output), [joined(text) for text in row])
        of_rouge += rouge.calc_score([joined(output)], [joined(text) for text in row])
    assert score("cider", OUTPUTS, REFERENCES) == pytest.approx(theirs.compute_score()[0])
    assert score("rouge_l", OUTPUTS, REFERENCES) == pytest.approx(of_rouge / len(OUTPUTS))


# All ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "row", "bleu", "nist", "rouge_l"),
    [
        (
            "In the city centre Blue Spice is a coffee shop with a price range of more than £30.",
            [
                "A coffee shop in the city centre area called Blue Spice.",
                "Blue Spice is a coffee shop in city centre.",
            ],
            0.3882,
            2.2780,
            0.4581,
        ),
        (
            "With a customer rating of 5 out of 5, Blue Spice is a coffee shop near Crowne Plaza "
            "Hotel.",
            [
                "The coffee shop Blue Spice is based near Crowne Plaza Hotel and has a high "
                "customer rating of 5 out of 5.",
                "The Blue Spice coffee shop, near Crowne Plaza Hotel, has a customer rating of 5 "
                "out of 5.",
                "If you want a coffee shop rated 5 out of 5 pick Blue Spice. It is located near "
                "Crowne Plaza Hotel.",
            ],
            0.6252,
            4.6897,
            0.5946,
        ),
        (
            "Cocum is a coffee shop located near Café Sicilia with a high customer rating.",
            [
                "coffee shop located near Café Sicilia called Cocum with a high customer rating",
                "Near Café Sicilia is a high rated coffee shop called Cocum",
                "coffee shop Cocum has a high customer rating and is located near Café Sicilia.",
                "There is a coffee shop named Cocum located near Café Sicilia. The customer rating "
                "is high.",
                "For a coffee shop with high customer rating near Café Sicilia, try Cocum.",
                "There is a high rated coffee shop named Cocum near Café Sicilia.",
            ],
            0.7098,
            4.7877,
            0.8203,
        ),
    ],
)
def test_scores_are_those_that_the_e2e_challenge_printed(output, row, bleu, nist, rouge_l):
    """Rows of the challenge's test set as its organisers scored them one by one.

    Source: tuetschek/e2e-eval, system_outputs/all/tnt/System 1/Sys1-Model1.segscores.tsv.
    """
    found = text_scores.score(("bleu_e2e", "nist", "rouge_l"), [output], [row])
    expected = {"bleu_e2e": bleu, "nist": nist, "rouge_l": rouge_l}
    assert found == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.parametrize("name", ALL)
def test_orders_of_rows_and_of_references_do_not_matter(name):
    expected = score(name, OUTPUTS, REFERENCES)
    assert expected > 0
    turned = [row[::-1] for row in REFERENCES]
    assert score(name, OUTPUTS, turned) == pytest.approx(expected)
    assert score(name, OUTPUTS[::-1], turned[::-1]) == pytest.approx(expected)


@pytest.mark.parametrize("name", ALL)
def test_a_copy_of_a_reference_is_best(name):
    rows = [row[:1] for row in REFERENCES]
    best = score(name, [row[0] for row in rows], rows)
    assert score(name, OUTPUTS, rows) < best
    full = {"bleu": 1, "bleu_e2e": 1, "rouge_l": 1, "cider": 10}
    assert best == pytest.approx(full.get(name, best))
    assert (best > 1.001) == name.endswith(tables.NOT_PERCENT)  # Tables show others in percent.


@pytest.mark.parametrize("name", ALL)
def test_references_of_other_rows_score_lower(name):
    moved = REFERENCES[1:] + REFERENCES[:1]
    assert score(name, OUTPUTS, moved) < score(name, OUTPUTS, REFERENCES) / 2


@pytest.mark.parametrize("name", ["bleu", "bleu_e2e", "rouge_l", "meteor_exact_stem"])
def test_more_references_raise_the_score(name):
    """Not so CIDEr, a mean over them, nor NIST, which weighs words by all of them."""
    fewer = [row[-1:] for row in REFERENCES]
    assert score(name, OUTPUTS, REFERENCES) > score(name, OUTPUTS, fewer)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_output_scores_zero_and_lowers_the_others(name, empty):
    assert score(name, [empty] * 4, REFERENCES) == 0
    some = score(name, [*OUTPUTS[:3], empty], REFERENCES)
    assert 0 < some < score(name, OUTPUTS, REFERENCES)


@pytest.mark.parametrize("name", ALL)
def test_case_counts_for_bleu_alone(name):
    raised = [output.upper() for output in OUTPUTS]
    same = score(name, raised, REFERENCES) == pytest.approx(score(name, OUTPUTS, REFERENCES))
    assert same == (name != "bleu")


def test_e2e_ignores_case_where_the_plain_words_differ():
    output, row = (
        "blue spice is a pub in the city centre",
        ["Blue Spice is a pub in the city centre"],
    )
    assert score("bleu_e2e", [output], [row]) == pytest.approx(1)
    assert score("bleu", [output], [row]) == pytest.approx(
        (7 / 9 * 6 / 8 * 5 / 7 * 4 / 6) ** (1 / 4)
    )


def test_words_are_split_as_the_official_scripts_split_them():
    text = (
        "It's near Café Sicilia (£20-25, 4.5 stars); kids can't eat at J. Doe's, 5/5 "
        "family-friendly."
    )
    assert (
        words.caption_words(text)
        == (
            "it 's near café sicilia ( £ 20-25 4.5 stars ) kids ca n't eat at j. doe 's 5/5 "
            "family-friendly"
        ).split()
    )
    assert (
        words.mteval_words(text)
        == (
            "it's near café sicilia ( £20 - 25 , 4.5 stars ) ; kids can't eat at j . doe's , 5 / 5 "
            "family-friendly ."
        ).split()
    )
    assert (
        words.caption_words("I’m one of those who cannot; hors d’oeuvres … don’t!")
        == ("i 'm one of those who can not hors d'oeuvres do n't").split()
    )


@pytest.mark.parametrize("name", ["rouge_l", "meteor_exact_stem", "cider"])
def test_texts_of_punctuation_have_no_words_for_the_caption_metrics(name):
    assert score(name, ["...", "a"], [["a"], ["...", "!"]]) == 0


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"Unknown scores \['meteor'\]; choose from \('bleu', "):
        text_scores.score(("bleu", "meteor"), ["a"], [["a"]])
    with pytest.raises(ValueError, match=r"0 outputs and 0 rows.*at least 1"):
        text_scores.score(("bleu",), [], [])
    with pytest.raises(ValueError, match="2 outputs and 1 rows"):
        text_scores.score(("bleu",), ["a", "b"], [["a"]])


@pytest.mark.parametrize("row", [[], ["b", ""], [" "], "b"])
def test_bad_references_are_named(row):
    with pytest.raises(ValueError, match=r"references of row 1 are .*give a list of one text"):
        text_scores.score(("bleu",), ["a", "b"], [["a"], row])
