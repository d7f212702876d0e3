"""Turns SIGTERM and SIGINT into a polite question that the loop asks between two updates."""

import contextlib
import signal
import types
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields ``should_stop``, which gives True once SIGTERM or SIGINT came.

    A second signal acts as usual.
    """
    received = []
    signals = (signal.SIGTERM, signal.SIGINT)
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in signals}

    def note(number: int, frame: types.FrameType | None) -> None:
        del frame
        received.append(number)
        signal.signal(number, previous[number])

    for number in signals:
        signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
