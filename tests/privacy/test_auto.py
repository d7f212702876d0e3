"""Claims about the choice of engine: least memory, but not at any price."""

import pytest

from memarc.privacy.auto import CANDIDATES, Cost, cheapest
from memarc.privacy.engines import ENGINES


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [
        ([("a", 30, 100), ("b", 20, 150), ("c", 25, 90)], "c"),  # b multiplies too much.
        ([("a", 30, 100), ("b", 20, 150), ("c", 25, 100)], "b"),  # Exactly the factor.
        ([("a", 20, 101), ("b", 20, 100)], "b"),  # A tie goes to less work.
        ([("a", None, 90), ("b", 50, 100)], "b"),  # a does not fit.
        ([("a", None, 90), ("b", None, 80)], "b"),  # None fits.
    ],
)
def test_the_least_memory_within_the_factor_of_the_least_work(costs, chosen):
    assert cheapest([Cost(*cost) for cost in costs]).engine == chosen


def test_candidates_are_engines_and_nothing_to_choose_from_is_refused():
    assert set(CANDIDATES) < set(ENGINES)
    with pytest.raises(ValueError, match="no engine"):
        cheapest([])
