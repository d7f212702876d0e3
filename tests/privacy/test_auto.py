"""Claims about the choice of engine: least memory times work, and what fits comes first."""

import pytest

from memarc.privacy.auto import CANDIDATES, Cost, choose
from memarc.privacy.engines import ENGINES


def chosen(*costs):
    """The name that is chosen from costs in this order."""
    found = {name: Cost(name, *cost) for name, *cost in costs}
    return choose(tuple(found), found.get).engine


@pytest.mark.parametrize(
    ("costs", "wanted"),
    [
        ([("a", 30, 100), ("b", 20, 151), ("c", 25, 119)], "c"),  # 3000, 3020, 2975.
        ([("a", 30, 100), ("b", 20, 149)], "b"),  # Half as much work again, a third less memory.
        ([("a", 30, 100), ("b", 20, 151)], "a"),
        ([("a", 20, 101), ("b", 20, 100)], "b"),
        ([("a", 20, 150), ("b", 30, 100)], "b"),  # A tie goes to less work.
        ([("a", 0, 101), ("b", 0, 100)], "b"),  # Nothing beside the arguments.
    ],
)
def test_the_least_memory_times_work(costs, wanted):
    assert chosen(*costs) == wanted


@pytest.mark.parametrize(
    ("costs", "wanted"),
    [
        ([("a", None, 90), ("b", 50, 100)], "b"),
        ([("a", None, 10), ("b", 50, 100)], "b"),  # However little work it would be.
        ([("a", None, 10), ("b", 50, 100), ("c", 60, 60)], "c"),
        ([("a", None, 90), ("b", None, 80)], "b"),  # None fits.
    ],
)
def test_an_engine_that_fits_comes_before_one_that_does_not(costs, wanted):
    assert chosen(*costs) == wanted


def test_engines_whose_taps_the_loss_does_not_take_are_skipped_and_each_is_asked_once():
    asked = []

    def cost_of(engine):
        asked.append(engine)
        return (
            None if engine == "ghost" else Cost(engine, {"vmap": 9, "book_keeping": 8}[engine], 1)
        )

    assert choose(CANDIDATES, cost_of) == Cost("book_keeping", 8, 1)
    assert asked == list(CANDIDATES)
    with pytest.raises(ValueError, match=r"none of \('vmap', 'ghost', 'book_keeping'\) takes"):
        choose(CANDIDATES, lambda engine: None)


def test_candidates_are_engines_and_nothing_to_choose_from_is_refused():
    assert set(CANDIDATES) < set(ENGINES)
    with pytest.raises(ValueError, match="no engine"):
        choose((), {}.get)
