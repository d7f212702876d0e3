"""The grammars of the embedded tasks: ``train_rows``, ``dev_rows``, ``DEV_ROWS``, ``tokenizer``."""

from collections.abc import Mapping
from types import ModuleType

from memarc.data import restaurants, reviews

GRAMMARS: Mapping[str, ModuleType] = {"reviews": reviews, "restaurants": restaurants}
"""Name of a task -> the module of its grammar."""
