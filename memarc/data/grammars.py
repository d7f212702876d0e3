"""The grammars of the embedded tasks, by the task's name."""

import dataclasses
from collections.abc import Callable, Mapping

from memarc.data import restaurants, reviews
from memarc.data.rows import Rows
from memarc.data.tokenize import Tokenizer


@dataclasses.dataclass(frozen=True)
class Grammar:
    """What an embedded task's grammar makes.

    Attributes:
      train_rows: ``(count, seed) -> Rows``, private ones.
      dev_rows: ``(count, seed) -> Rows``, held-out ones.
      dev_count: How many held-out rows are made where a config names no number.
      tokenizer: Makes the word-level tokenizer of the grammar's words.
    """

    train_rows: Callable[[int, int], Rows]
    dev_rows: Callable[[int, int], Rows]
    dev_count: int
    tokenizer: Callable[[], Tokenizer]


GRAMMARS: Mapping[str, Grammar] = {
    "reviews": Grammar(
        reviews.train_rows, reviews.dev_rows, dev_count=1000, tokenizer=reviews.tokenizer
    ),
    "restaurants": Grammar(
        restaurants.train_rows, restaurants.dev_rows, dev_count=600, tokenizer=restaurants.tokenizer
    ),
}
