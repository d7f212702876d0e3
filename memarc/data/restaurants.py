"""A seeded grammar of restaurants: meaning representations and several texts that say each.

A meaning representation (MR) has the syntax of the E2E challenge, with spaces between tokens:
"name [ the copper kettle ] , food [ thai ] , near [ the clock tower ]". It holds the name and two
to five of seven other slots; a text says all of them, in one of four forms and many wordings.
Names, places and all other values are this file's own: none is taken from the E2E files. Each MR
belongs to one stream by a hash of it: train, dev and public never share one, at any seed.
"""

import random
import re
from collections.abc import Collection, Mapping, Sequence

from memarc.data import tokenize
from memarc.data.draws import hundredth, pick, shuffle
from memarc.data.references import flatten
from memarc.data.rows import Rows

_QUALITIES = (
    "amber velvet copper silver rusty quiet hidden merry lucky crooked sleepy wandering"
).split()

_THINGS = "fork kettle lantern badger otter pear anchor barrel feather compass acorn ladle".split()

_VALUES = {
    "eatType": "bistro/diner/tavern/canteen/brasserie/tea room".split("/"),
    "food": "thai mexican greek spanish turkish korean lebanese vegan".split(),
    "priceRange": "modest fair steep shocking".split(),
    "customer rating": "two stars/three stars/four stars/five stars".split("/"),
    "area": "old town/harbour/market square/hill district/north end/garden quarter".split("/"),
    "familyFriendly": ("yes", "no"),
    "near": (
        "the clock tower/the tram depot/the stone bridge/the post office/the paper workshop/"
        "the town library/the bus station/the science museum"
    ).split("/"),
}
"""Slot -> its values, in the order in which an MR gives slots after the name."""

_FEWEST_SLOTS, _MOST_SLOTS = 2, 5
"""Beside the name."""

_KINDS = {
    (True, True): (
        "a {food} {eatType}",
        "a {eatType} with {food} food",
        "a {eatType} that serves {food} dishes",
    ),
    (True, False): ("a {eatType}",),
    (False, True): (
        "a {food} place",
        "a place with {food} food",
        "a place that serves {food} dishes",
    ),
    (False, False): ("a place to eat",),
}
"""(the MR has eatType, it has food) -> how a text says them."""

_AREAS = ("in the {area}", "found in the {area}")
_NEIGHBOURS = ("near {near}", "close to {near}", "next to {near}")
_PRICES = ("its prices are {priceRange}", "guests pay {priceRange} prices")
_FAMILIES = {
    "yes": ("families like it", "it is a place for children"),
    "no": ("families give it a miss", "it is not a place for children"),
}
_PRIVATE_RATINGS = ("guests give it {customer rating}",)
_PUBLIC_RATINGS = ("its rating is {customer rating}", "it is a place with {customer rating}")
_JOINTS = (" and ", " , ", " . ")

_NAME_FIRST = (
    "{name} is {kind} {place} . {opinions}",
    "there is {kind} called {name} {place} . {opinions}",
    "try {name} , {kind} {place} . {opinions}",
)
_OPINIONS_FIRST = "{opinions} it is {name} , {kind} {place} ."

_PRIVATE = (_PRIVATE_RATINGS, (*_NAME_FIRST, *[_OPINIONS_FIRST] * len(_NAME_FIRST)))
_PUBLIC = (_PUBLIC_RATINGS, _NAME_FIRST)
_WORDINGS = {"train": _PRIVATE, "dev": _PRIVATE, "public": _PUBLIC}
"""Stream -> wordings of the rating, and forms; each is drawn evenly."""

_STREAMS = {"train": range(0, 40), "dev": range(40, 50), "public": range(50, 100)}
"""Stream -> the hundredths of the hash range whose MRs are its own."""

DEV_ROWS = 600
"""Held-out rows where a config names no number."""

_MOST_REFERENCES = 3
_TRIES_PER_MR = 400
"""Draws before the stream counts as used up; a fresh MR needs ten at most on average."""

_GAP = re.compile(r"\{[^}]*\}")


def train_rows(count: int, seed: int) -> Rows:
    """Draws the private train rows.

    Args:
      count: Number of rows, that is of references; an MR has one to three, side by side.
      seed: Fixes the rows; the same on every machine.

    Returns:
      Rows of an MR and a text, all different, tokens separated by single spaces.

    Raises:
      ValueError: If ``count`` is negative or beyond what the grammar holds.
    """
    return _draw("train", count, seed)


def dev_rows(count: int, seed: int) -> Rows:
    """Draws held-out rows; as ``train_rows``, sharing no MR with them.

    Each MR has three references, the last one what is left of ``count``.
    """
    return _draw("dev", count, seed)


def public_rows(count: int, seed: int) -> Rows:
    """Draws public rows for pre-training; shares no MR with train or dev at any seed.

    Their texts have every word but lack two things, which are left for the private rows to teach:
    the form that puts opinions before the name (half of the private texts), and the private
    wording of the rating. Args and errors as ``train_rows``.
    """
    return _draw("public", count, seed)


def vocabulary() -> tuple[str, ...]:
    """Every word that the grammar can write, sorted; public, as it is read off the grammar."""
    phrases = [
        "name [ ] the",
        *_QUALITIES,
        *_THINGS,
        *_VALUES,
        *(value for values in _VALUES.values() for value in values),
        *(wording for wordings in _KINDS.values() for wording in wordings),
        *_AREAS,
        *_NEIGHBOURS,
        *_PRICES,
        *(wording for wordings in _FAMILIES.values() for wording in wordings),
        *_PRIVATE_RATINGS,
        *_PUBLIC_RATINGS,
        *_JOINTS,
        *_NAME_FIRST,
        _OPINIONS_FIRST,
    ]
    return tuple(sorted({word for phrase in phrases for word in _GAP.sub("", phrase).split()}))


def tokenizer() -> tokenize.Tokenizer:
    """The word-level tokenizer of ``vocabulary``, with a token that ends a text."""
    return tokenize.word_level_tokenizer(vocabulary(), end_token=tokenize.END_TOKEN)


def _draw(stream: str, count: int, seed: int) -> Rows:
    """Draws so many rows from a named stream of random numbers."""
    if count < 0:
        raise ValueError(f"count is {count}; give a whole number from 0 up.")
    # random.Random: Python promises the same floats from one seed in all versions.
    rng = random.Random(f"{stream}/{seed}")
    found: dict[str, list[str]] = {}
    left = count
    while left:
        slots, mr = _new_slots(rng, stream, found)
        most = _MOST_REFERENCES if stream == "dev" else 1 + int(rng.random() * _MOST_REFERENCES)
        texts: dict[str, None] = {}
        while len(texts) < min(most, left):  # Every MR has more texts than that.
            texts[_text(rng, stream, slots)] = None
        found[mr] = list(texts)
        left -= len(texts)
    return flatten(tuple(found), tuple(found.values()))


def _new_slots(
    rng: random.Random, stream: str, seen: Collection[str]
) -> tuple[dict[str, str], str]:
    """Slots of a stream that are not in ``seen``, and the MR that writes them."""
    for _ in range(_TRIES_PER_MR):
        slots = _slots(rng)
        mr = " , ".join(f"{slot} [ {value} ]" for slot, value in slots.items())
        if mr not in seen and hundredth(mr) in _STREAMS[stream]:
            return slots, mr
    raise ValueError(
        f"The restaurants grammar found no new {stream} meaning representation after {len(seen)}; "
        "ask for fewer rows."
    )


def _slots(rng: random.Random) -> dict[str, str]:
    """The slots of an MR with their values, the name first."""
    chosen = list(_VALUES)
    size = _FEWEST_SLOTS + int(rng.random() * (_MOST_SLOTS + 1 - _FEWEST_SLOTS))
    while len(chosen) > size:
        del chosen[int(rng.random() * len(chosen))]
    name = f"the {pick(rng, _QUALITIES)} {pick(rng, _THINGS)}"
    return {"name": name, **{slot: pick(rng, _VALUES[slot]) for slot in chosen}}


def _text(rng: random.Random, stream: str, slots: Mapping[str, str]) -> str:
    """A text of a stream's wordings that says all slots."""
    ratings, forms = _WORDINGS[stream]
    places = {"area": _AREAS, "near": _NEIGHBOURS}
    opinions = {
        "priceRange": _PRICES,
        "customer rating": ratings,
        "familyFriendly": _FAMILIES.get(slots.get("familyFriendly", ""), ()),
    }
    said = _say(rng, slots, opinions)
    shuffle(rng, said)
    text = pick(rng, forms).format(
        name=slots["name"],
        kind=pick(rng, _KINDS["eatType" in slots, "food" in slots]).format(**slots),
        place=" ".join(_say(rng, slots, places)),
        opinions=f"{pick(rng, _JOINTS).join(said)} ." if said else "",
    )
    return " ".join(text.split())


def _say(
    rng: random.Random, slots: Mapping[str, str], wordings: Mapping[str, Sequence[str]]
) -> list[str]:
    """One wording, filled in, of each slot that the MR has."""
    return [pick(rng, wordings[slot]).format(**slots) for slot in wordings if slot in slots]
