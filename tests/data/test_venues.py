"""The public grammar of venues: texts say what their MR says, in many wordings."""

import re

import pytest

from memarc.data import venues

WORDS = ("Zanzibar", "quokka", "1987", "Łódź", "xy")
INPUTS, TARGETS = venues.rows(3000, 4, WORDS).columns


def slots_of(mr):
    return dict(slot.split(" : ") for slot in mr.split(" | "))


def test_rows_depend_on_the_seed_alone():
    assert venues.rows(50, 4, WORDS).columns == (INPUTS[:50], TARGETS[:50])
    assert venues.rows(50, 5, WORDS).columns[1] != TARGETS[:50]


def test_mrs_have_the_slots_of_the_challenge_in_its_order():
    order = ["name", *venues._VALUES]
    for mr in INPUTS:
        names = list(slots_of(mr))
        assert names[0] == "name" and 3 <= len(names) <= 8
        assert [name for name in order if name in names] == names


def test_every_value_is_said_as_it_stands_or_in_words_of_its_own():
    for mr, text in zip(INPUTS, TARGETS, strict=True):
        for slot, value in slots_of(mr).items():
            wordings = [value]
            if slot == "priceRange":
                wordings += venues._PRICE_WORDS.get(value, ())
            if slot == "familyFriendly":
                wordings = [*venues._FAMILY_WORDS[value], *venues._OWN[value]]
            assert any(wording in text for wording in wordings), (mr, text)


def test_texts_are_whole_sentences_in_many_wordings():
    for text in TARGETS:
        assert text.endswith(".") and "  " not in text and "{" not in text and " ." not in text
        assert not re.search(r"\b[Aa] [aeiouAEIOU]", text), text
    openings = {text.split()[0] for text in TARGETS}
    assert {"There", "With", "Rated", "In", "Near"} <= openings
    joined = " ".join(TARGETS)
    for family in (venues._AFTER, venues._OWN):
        for wordings in family.values():
            for wording in wordings:
                assert re.sub(r"\{.*", "", wording).strip() in joined, wording


def test_most_names_and_no_short_words_are_open():
    names = [slots_of(mr)["name"] for mr in INPUTS]
    share = sum(any(word in name for word in WORDS) for name in names) / len(names)
    assert 0.7 < share < 0.9
    assert not any(re.search(r"\bxy\b", mr) for mr in INPUTS)


def test_impossible_draws_are_refused():
    with pytest.raises(ValueError, match="count is -1"):
        venues.rows(-1, 0, WORDS)
    with pytest.raises(ValueError, match="there are 0 words"):
        venues.rows(1, 0, ("a", "of"))
    assert venues.rows(0, 0, WORDS).columns == ([], [])
