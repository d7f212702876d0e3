"""Tells people how far a run is: one line that changes at a terminal, else a line now and then.

All of it is public: steps are planned, and what their times tell is said in docs/guarantee.md.
"""

import datetime
import sys
import time
from collections.abc import Callable

import tqdm

_SECONDS = 10.0
"""Between lines where there is no terminal: every one of them is text that stays."""


class Progress:
    """Steps that were made of those that are planned, their rate, and the time left."""

    def __init__(
        self, title: str, *, first: int, steps: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begins to count time.

        Args:
          title: The words in front.
          first: The number of steps made before.
          steps: The number of steps of the whole plan.
          clock: Gives seconds.
        """
        self._title, self._first, self._steps, self._clock = title, first, steps, clock
        self._done, self._note = first, ""
        self._start = self._told = clock()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                desc=title,
                initial=first,
                total=steps,
                unit="step",
                dynamic_ncols=True,
                mininterval=0.5,
            )

    def step(self) -> None:
        """Counts one step."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
            return
        now = self._clock()
        if now - self._told >= _SECONDS or self._done == self._steps:
            self._told = now
            print(self.line(), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Shows a text, such as a score, behind the rest until there is another."""
        self._note = text
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def line(self) -> str:
        """Says how far the run is."""
        made, seconds = self._done - self._first, self._clock() - self._start
        rate = made / seconds if seconds > 0 else 0.0
        left = "unknown" if not rate else _spelled((self._steps - self._done) / rate)
        told = f"{rate:.3g} steps a second, {left} left"
        note = f", {self._note}" if self._note else ""
        return f"{self._title}: step {self._done} of {self._steps}, {told}{note}"

    def close(self) -> None:
        """Leaves the line at the terminal as it is."""
        if self._bar is not None:
            self._bar.close()


def _spelled(seconds: float) -> str:
    """A time as hours, minutes and seconds."""
    return str(datetime.timedelta(seconds=round(seconds)))
