"""Calls a function in a fresh process, so that no measurement sees what another left behind."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Returns ``function(*args)`` of a new interpreter; both must be picklable."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *args).result()
