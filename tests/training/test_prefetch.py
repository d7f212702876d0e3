"""Items made ahead are the same items; errors arrive, and the thread ends with its context."""

import threading
import time
import types

import pytest

from memarc.training import prefetch as lib
from memarc.training.prefetch import prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_items_come_in_order_and_the_end_stays_the_end(count):
    with prefetch(iter(range(count))) as items:
        assert list(items) == list(range(count))
        assert list(items) == []
    assert not threads()


def test_no_more_is_made_ahead_than_stated():
    made = []

    def make():
        for number in range(100):
            made.append(number)
            yield number

    with prefetch(make()) as items:
        assert next(items) == 0
        end = time.monotonic() + 5
        while len(made) < lib._AHEAD + 2 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(made) == lib._AHEAD + 2  # The one taken, those that wait, one in the making.
    assert not threads()
    assert len(made) <= lib._AHEAD + 3


def test_an_error_is_raised_where_its_item_is_asked_for():
    def make():
        yield 1
        raise KeyError("broken")

    with prefetch(make()) as items:
        assert next(items) == 1
        for _ in range(2):
            with pytest.raises(KeyError, match="broken"):
                next(items)
    assert not threads()


def test_an_error_of_the_caller_ends_the_thread():
    def forever():
        while True:
            yield 0

    with pytest.raises(ValueError, match="mine"), prefetch(forever()) as items:
        next(items)
        raise ValueError("mine")
    assert not threads()


def test_waiting_is_counted_and_work_done_meanwhile_is_not(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)

    def slow():
        clock.now += 3.0
        return "item", 7

    stopwatch = types.SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr(lib, "time", stopwatch)
    items = lib.Prefetched(types.SimpleNamespace(get=slow))
    assert next(items) == 7 and items.waited == 3.0
    clock.now += 100.0  # The caller works.
    assert next(items) == 7 and items.waited == 6.0
