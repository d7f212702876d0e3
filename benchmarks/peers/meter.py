"""Times steps, and the peak of a process's memory while they run."""

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

_RESET_PEAK = "5"  # What Linux takes for it (proc_pid_clear_refs).


class Meter(Protocol):
    """Knows the peak of memory since it was started."""

    def start(self) -> None:
        """Forgets earlier peaks, where the device can."""
        ...

    def peak_bytes(self) -> int | None:
        """The peak since then, or None where an earlier one hides it."""
        ...


class HostMeter:
    """The peak of this process's memory, by Linux; None elsewhere."""

    def start(self) -> None:
        """Gives freed memory back, and forgets earlier peaks."""
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")

    def peak_bytes(self) -> int | None:
        """The largest resident size since the start."""
        try:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        (line,) = [x for x in lines if x.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024


def measure(
    make: Callable[[], Callable[[], None]], steps: int, warmup: int, meter: Meter
) -> dict[str, Any]:
    """Makes a step, warms it up, and times it.

    Args:
      make: Gives a step that has ended when it returns.
      steps: How many are timed.
      warmup: How many run before, untimed.
      meter: The device's.

    Returns:
      prepare_seconds (building, compiling and warming up); seconds of all steps, and cpu_seconds,
      those that the process computed, on all cores together; peak_bytes.
    """
    meter.start()
    start = time.perf_counter()
    step = make()
    for _ in range(warmup):
        step()
    prepared = time.perf_counter() - start
    seconds, computed = [], []
    for _ in range(steps):
        start, start_of_process = time.perf_counter(), time.process_time()
        step()
        seconds.append(round(time.perf_counter() - start, 5))
        computed.append(round(time.process_time() - start_of_process, 5))
    return {
        "prepare_seconds": round(prepared, 1),
        "seconds": seconds,
        "cpu_seconds": computed,
        "peak_bytes": meter.peak_bytes(),
    }
