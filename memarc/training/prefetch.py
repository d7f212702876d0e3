"""Makes the next items of an iterator in a thread, while the devices work on the last ones."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

_AHEAD = 2  # So many items wait, besides the one in the making, and take memory.


class Prefetched(Generic[_Item]):
    """An iterator over items that a thread makes.

    Attributes:
      waited: Seconds for which the caller has waited for items so far. The devices may have been
        at work meanwhile, so it bounds from above what they have waited.
    """

    def __init__(self, made: "queue.Queue[tuple[str, _Item | BaseException | None]]") -> None:
        """Reads from the thread's queue."""
        self._made = made
        self.waited = 0.0

    def __next__(self) -> _Item:
        """Gives the next item, or raises what making it raised."""
        start = time.perf_counter()
        kind, item = self._made.get()
        self.waited += time.perf_counter() - start
        if kind == "item":
            return item  # type: ignore[return-value]
        self._made.put((kind, item))  # Asked again, it says the same.
        if kind == "error":
            raise item  # type: ignore[misc]
        raise StopIteration

    def __iter__(self) -> "Prefetched[_Item]":
        """Gives the iterator itself."""
        return self


@contextlib.contextmanager
def prefetch(items: Iterator[_Item]) -> Iterator[Prefetched[_Item]]:
    """Yields the same items, made ahead; the thread ends with the context.

    Args:
      items: Advanced in the thread only. It may put arrays on devices, but must not run programs
        in which processes wait for each other.
    """
    made: queue.Queue = queue.Queue(maxsize=_AHEAD)
    ended = threading.Event()

    def put(entry: tuple[str, _Item | BaseException | None]) -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                made.put(entry, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put(("item", item))
                if ended.is_set():
                    return
            put(("end", None))
        except BaseException as error:  # To be raised where the item is asked for.
            put(("error", error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield Prefetched(made)
    finally:
        ended.set()
        thread.join()
