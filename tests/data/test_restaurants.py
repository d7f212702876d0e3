"""The restaurants grammar says what its representations hold, and its streams never mix."""

import itertools
import re

import pytest

from memarc.data import e2e_csv, restaurants, tokenize
from memarc.data.references import references

SEED = 0
DRAWS = [restaurants.train_rows, restaurants.dev_rows, restaurants.public_rows]

GOLDEN = (
    "the merry kettle is a canteen found in the hill district .",
    "the merry kettle is a canteen in the hill district .",
    "families give it a miss . it is the lucky feather , a diner in the old town near the tram "
    "depot .",
)
"""The first train texts at seed 0; they change only with a deliberate change of the grammar."""


@pytest.fixture(scope="module")
def train():
    return restaurants.train_rows(4000, SEED)


@pytest.fixture(scope="module")
def public():
    return restaurants.public_rows(4000, SEED)


def slots_of(mr):
    found = dict(part.removesuffix(" ]").split(" [ ") for part in mr.split(" , "))
    assert " , ".join(f"{slot} [ {value} ]" for slot, value in found.items()) == mr
    return found


def words_of(rows):
    return {word for text in (*rows.columns[0], *rows.columns[1]) for word in text.split(" ")}


def test_a_representation_holds_the_name_and_two_to_five_other_slots_in_order(train):
    order = ["name", *restaurants._VALUES]
    sizes = set()
    for mr in set(train.columns[0]):
        slots = list(slots_of(mr))
        assert slots[0] == "name"
        assert slots == sorted(slots, key=order.index)
        sizes.add(len(slots))
    assert sizes == {3, 4, 5, 6}


@pytest.mark.parametrize("draw", DRAWS)
def test_a_text_says_every_slot(draw):
    rows = draw(900, SEED)
    for mr, text in zip(*rows.columns, strict=True):
        slots = slots_of(mr)
        says_no = bool(re.search("give it a miss|not a place for children", text))
        says_yes = bool(re.search("like it|is a place for children", text))
        family = slots.pop("familyFriendly", None)
        assert (says_yes, says_no) == (family == "yes", family == "no"), text
        for value in slots.values():
            assert f" {value} " in f" {text} "
        assert text.endswith(" .")
        assert " . ." not in text


def test_train_representations_have_one_to_three_references_and_dev_ones_three(train):
    assert {len(texts) for texts in references(train)[1]} == {1, 2, 3}
    assert {len(texts) for texts in references(restaurants.dev_rows(300, SEED))[1]} == {3}
    assert [len(texts) for texts in references(restaurants.dev_rows(8, SEED))[1]] == [3, 3, 2]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_as_many_different_rows_are_drawn_as_asked_for(draw, count):
    rows = draw(count, SEED)
    assert len(rows) == len(set(zip(*rows.columns, strict=True))) == count
    # References of a representation stand side by side, so each is drawn once.
    inputs = rows.columns[0]
    assert len(list(itertools.groupby(inputs))) == len(set(inputs))


def test_streams_never_share_a_representation_at_any_seed():
    found = [{mr for seed in range(4) for mr in draw(700, seed).columns[0]} for draw in DRAWS]
    assert all(map(set.isdisjoint, found, [*found[1:], found[0]]))


@pytest.mark.parametrize("draw", DRAWS)
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(draw):
    first, again, other = draw(50, 2), draw(50, 2), draw(50, 4)
    assert first.columns == again.columns
    assert first.columns[0] != other.columns[0]


def test_rows_are_those_of_every_machine():
    inputs, targets = restaurants.train_rows(len(GOLDEN), 0).columns
    first = "name [ the merry kettle ] , eatType [ canteen ] , area [ hill district ]"
    assert tuple(targets) == GOLDEN
    assert inputs[:2] == [first, first]
    assert list(slots_of(inputs[2])) == ["name", "eatType", "area", "familyFriendly", "near"]


def test_public_texts_lack_one_form_and_one_wording_and_no_word(train, public):
    def share(rows, pattern):
        return sum(bool(re.search(pattern, text)) for text in rows.columns[1]) / len(rows)

    opinions_first = r"^(its|it is (not )?a|guests|families)\b"
    assert share(public, opinions_first) == 0
    assert 0.4 < share(train, opinions_first) < 0.5  # Half, where there is an opinion.
    assert share(public, "guests give it") == 0
    assert share(train, r"its rating is|place with \w+ stars") == 0
    assert share(public, " stars") == pytest.approx(share(train, " stars"), abs=0.05)
    assert words_of(public) == set(restaurants.vocabulary())


def test_the_word_list_is_small_sorted_and_holds_every_word_of_every_stream(train, public):
    words = restaurants.vocabulary()
    assert list(words) == sorted(set(words))
    assert 100 <= len(words) <= 150
    assert words_of(train) | words_of(public) == set(words)
    assert words_of(restaurants.dev_rows(900, 3)) <= set(words)
    for ids in tokenize.plain_ids(restaurants.tokenizer(), [*train.columns[0], *train.columns[1]]):
        assert min(ids) >= len(tokenize.SPECIAL_TOKENS)


def test_rows_have_less_than_eighty_tokens(train, public):
    for rows in (train, public):
        pairs = zip(*rows.columns, strict=True)
        assert max(len(mr.split()) + len(text.split()) for mr, text in pairs) < 80


def test_no_name_place_or_other_value_is_taken_from_e2e(shared):
    theirs = set()
    for name in ("trainset", "devset", "testset_w_refs"):
        for mr in set(e2e_csv.read_file(shared / "data" / "e2e" / f"{name}.csv.gz").columns[0]):
            theirs |= {slot.partition(" : ")[2] for slot in mr.lower().split(" | ")}
    ours = {value for values in restaurants._VALUES.values() for value in values}
    names = itertools.product(restaurants._QUALITIES, restaurants._THINGS)
    ours |= {f"the {quality} {thing}" for quality, thing in names}
    assert len(theirs) > 50
    assert ours & theirs == {"yes", "no"}


def test_negative_counts_and_counts_beyond_the_grammar_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="count is -1"):
        restaurants.dev_rows(-1, SEED)
    monkeypatch.setattr(restaurants, "_STREAMS", {"public": range(100)})
    slots = {"name": "the merry fork", "food": "thai", "area": "harbour"}
    monkeypatch.setattr(restaurants, "_slots", lambda rng: slots)
    with pytest.raises(ValueError, match="no new public meaning representation after 1; ask for"):
        restaurants.public_rows(4, SEED)
