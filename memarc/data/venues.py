"""A seeded grammar of places to eat, in E2E's slots and in many wordings: public, to pre-train on.

A meaning representation (MR) has the slots of the E2E challenge and the form in which models read
them, "name : Old Mill | food : Thai | area : harbour"; a text says all of them in one to six
sentences. Slots, their usual values and wordings are written down here from what the challenge's
description says and from common English; no text of its files was used. Many values are random
words, so that a decoder has to copy.
"""

import random
import re
from collections.abc import Mapping, Sequence

from memarc.data import e2e_csv
from memarc.data.draws import pick, shuffle
from memarc.data.rows import Rows

_NAMES = (
    "Old New Golden Silver Blue Green Red White Black Royal Little Lucky Happy Hidden Rising Hungry"
).split()
_THINGS = (
    "Mill Oak Crown Lion Swan Anchor Garden Lantern Table Kitchen Bridge Boat House Rose Fox Star "
    "Bell Harp Ship Barn Spoon Palace Curry Bar Inn Hotel Café Grill Tavern Lounge"
).split()
_PEOPLE = "Anna's Joe's Marco's Lucy's Henry's Maria's Ravi's Chen's".split()

_VALUES = {
    "eatType": "pub/restaurant/coffee shop/bistro/diner/bar/tea room/pizzeria".split("/"),
    "food": (
        "Italian/French/English/Chinese/Japanese/Indian/Thai/Greek/Spanish/Mexican/Turkish/Korean/"
        "American/Vegan/Fast food/Lebanese"
    ).split("/"),
    "priceRange": "cheap/moderate/high/less than £20/£20-25/more than £30/£10-15/under £9".split(
        "/"
    ),
    "customer rating": (
        "low/average/high/1 out of 5/3 out of 5/5 out of 5/4 out of 5/2 out of 5/two stars"
    ).split("/"),
    "area": "riverside/city centre/old town/harbour/market square/north end/suburbs".split("/"),
    "familyFriendly": ("yes", "no"),
    "near": (),  # As names.
}
"""Slot -> its usual values, in the order in which an MR gives slots after the name."""

_OPEN = {"name": 0.8, "near": 0.8, "food": 0.4, "eatType": 0.25, "area": 0.4}
_OPEN |= {"priceRange": 0.35, "customer rating": 0.35}
"""Slot -> share of its values that are random words."""

_PRICE_WORDS = {
    "cheap": ("cheap", "low-priced", "inexpensive", "low cost"),
    "moderate": ("moderately priced", "mid-priced", "average priced"),
    "high": ("expensive", "high priced", "high-end"),
}
_FAMILY_WORDS = {
    "yes": (
        "family friendly",
        "family-friendly",
        "child friendly",
        "kid friendly",
        "kids friendly",
    ),
    "no": ("adults only", "non family-friendly", "non-family-friendly"),
}

_TYPES = (
    "{eatType} serving {food}",
    "{eatType} that serves {food}",
    "{eatType} offering {food}",
    "{eatType} providing {food}",
    "{eatType} with {food}",
)
_AFTER = {
    "priceRange": (
        "with a price range of {priceRange}",
        "in the {priceRange} price range",
        "in the price range of {priceRange}",
        "with {priceRange} prices",
        "with prices of {priceRange}",
    ),
    "customer rating": (
        "with a customer rating of {customer rating}",
        "with a {customer rating} customer rating",
        "with a rating of {customer rating}",
        "rated {customer rating}",
        "rated {customer rating} by customers",
    ),
    "area": (
        "in the {area}",
        "in the {area} area",
        "located in the {area}",
        "by the {area}",
        "situated in the {area}",
    ),
    "near": (
        "near {near}",
        "near to {near}",
        "close to {near}",
        "located near {near}",
        "next to {near}",
        "not far from {near}",
    ),
}
"""Slot -> how the first sentence says it after what the place is."""

_OWN = {
    "eatType": ("is a {eatType}",),
    "food": ("serves {food}", "offers {food}", "provides {food}", "sells {food}"),
    "priceRange": (
        "has a price range of {priceRange}",
        "is in the {priceRange} price range",
        "has {priceRange} prices",
        "costs {priceRange}",
        "is priced {priceRange}",
    ),
    "customer rating": (
        "has a customer rating of {customer rating}",
        "has a {customer rating} customer rating",
        "is rated {customer rating}",
        "is rated {customer rating} by customers",
        "has a rating of {customer rating}",
    ),
    "area": ("is in the {area}", "is located in the {area}", "can be found in the {area}"),
    "near": ("is near {near}", "is located near {near}", "is close to {near}"),
    "yes": (
        "is family friendly",
        "is kid friendly",
        "is child friendly",
        "is a family friendly place",
        "welcomes families",
        "is good for families with children",
        "is children friendly",
    ),
    "no": (
        "is not family friendly",
        "is not family-friendly",
        "is not kid friendly",
        "is not child friendly",
        "is not suitable for children",
        "does not welcome families",
        "is for adults only",
    ),
}
"""Slot, or value of familyFriendly -> how a sentence of its own says it, after its subject."""

_FIRST = (
    "{name} is {kind} {after}.",
    "{name} is {kind} {after}.",
    "{name} is {kind} {after}.",
    "{name}, {after}, is {kind}.",
    "There is {kind} {after} called {name}.",
    "There is {kind} called {name} {after}.",
    "{After}, there is {kind} called {name}.",
    "{After} is {kind} called {name}.",
    "{name} is {kind}. It is {after}.",
)

_FEWEST_SLOTS, _MOST_SLOTS = 2, 7
"""Beside the name."""

_MOST_WORDS = 3
_TEXTS_PER_MR = 2


def rows(count: int, seed: int, words: Sequence[str]) -> Rows:
    """Draws public rows.

    Args:
      count: Number of texts; two in a row say the same MR.
      seed: Fixes the rows; the same on every machine.
      words: Many values, and most names, are one to three of these, whatever they mean.
        Those of two letters or less are left out.

    Returns:
      Rows of an MR and a text.

    Raises:
      ValueError: If ``count`` is negative, or there are no words.
    """
    words = [word for word in words if len(word) > 2]
    if count < 0 or not words:
        raise ValueError(
            f"count is {count} and there are {len(words)} words; give a count from 0 up and words "
            "of more than two letters."
        )
    rng = random.Random(f"venues/{seed}")
    inputs, targets = [], []
    while len(inputs) < count:
        slots = _slots(rng, words)
        for _ in range(min(_TEXTS_PER_MR, count - len(inputs))):
            inputs.append(e2e_csv.linearise(slots.items()))
            targets.append(_text(rng, slots))
    return Rows(columns=(inputs, targets), labels=None)


def _slots(rng: random.Random, words: Sequence[str]) -> dict[str, str]:
    """The slots of an MR with their values, the name first."""
    chosen = list(_VALUES)
    size = _FEWEST_SLOTS + int(rng.random() * (_MOST_SLOTS + 1 - _FEWEST_SLOTS))
    while len(chosen) > size:
        del chosen[int(rng.random() * len(chosen))]
    return {slot: _value(rng, slot, words) for slot in ("name", *chosen)}


def _value(rng: random.Random, slot: str, words: Sequence[str]) -> str:
    """A usual value of a slot, or some of the words."""
    if rng.random() < _OPEN.get(slot, 0.0):
        size = 1 + int(rng.random() * _MOST_WORDS)
        return " ".join(pick(rng, words) for _ in range(size))
    if slot not in ("name", "near"):
        return pick(rng, _VALUES[slot])
    form = pick(rng, ("The {0} {1}", "The {1}", "{0} {1}", "{2}", "{2} {1}", "{1} {1}"))
    return form.format(pick(rng, _NAMES), pick(rng, _THINGS), pick(rng, _PEOPLE))


def _text(rng: random.Random, slots: Mapping[str, str]) -> str:
    """A first sentence that says what the place is and some more, and sentences of the rest."""
    left = [slot for slot in slots if slot != "name"]
    said = dict(slots)
    if "food" in said and not said["food"].lower().endswith("food"):
        said["food"] += " food"
    kind = _kind(rng, slots, said, left)
    after = [slot for slot in left if slot in _AFTER and rng.random() < 0.6]
    shuffle(rng, after)
    after = after[:3]
    left = [slot for slot in left if slot not in after]
    phrase = _joined([pick(rng, _AFTER[slot]).format(**said) for slot in after])
    form = pick(rng, _FIRST if after else _FIRST[:1])
    first = form.format(
        name=slots["name"], kind=kind, after=phrase, After=phrase[:1].upper() + phrase[1:]
    )
    shuffle(rng, left)
    text = " ".join([first, *_rest(rng, slots, said, left)])
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", " ".join(text.split()))
    return text.replace(" .", ".").replace(" ,", ",")


def _kind(
    rng: random.Random, slots: Mapping[str, str], said: Mapping[str, str], left: list[str]
) -> str:
    """What the place is, "a cheap pub serving Thai food"; takes what it says off ``left``."""
    noun = said.get("eatType", pick(rng, ("restaurant", "place", "venue")))
    if "food" in left and rng.random() < 0.7:
        left.remove("food")
        if rng.random() < 0.3:
            noun = f"{slots['food']} {noun}"
        else:
            noun = pick(rng, _TYPES).format(eatType=noun, food=said["food"])
    if "eatType" in left:
        left.remove("eatType")
    for slot, choices in (("priceRange", _PRICE_WORDS), ("familyFriendly", _FAMILY_WORDS)):
        if slot in left and slots[slot] in choices and rng.random() < 0.4:
            left.remove(slot)
            noun = f"{pick(rng, choices[slots[slot]])} {noun}"
    return f"a {noun}"


def _rest(
    rng: random.Random, slots: Mapping[str, str], said: Mapping[str, str], left: list[str]
) -> list[str]:
    """Sentences that say one or two slots each."""
    sentences = []
    while left:
        taken = [left.pop() for _ in range(min(len(left), 1 + (rng.random() < 0.5)))]
        subject = pick(rng, ("It", "It", "It", slots["name"]))
        told = [
            pick(rng, _OWN[slots[slot] if slot == "familyFriendly" else slot]).format(**said)
            for slot in taken
        ]
        sentences.append(f"{subject} {' and '.join(told)}.")
    return sentences


def _joined(phrases: Sequence[str]) -> str:
    """All phrases; "and" comes before the last of three."""
    if len(phrases) < 3:
        return " ".join(phrases)
    return f"{' '.join(phrases[:-1])} and {phrases[-1]}"
