"""Pace: how far apart the reader's cycles are.

A cycle makes a turn of every worker, and a turn costs some milliseconds whatever is in it. While a stage is busy, or
cycles move much, they are further apart, so that turns are larger and cost less an event; otherwise events arrive
sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

STRETCH = 3
"""Intervals between two cycles while a stage is busy, or much is moved."""
LARGE_BYTES = 96 << 10
"""Much, an interval: three full frames."""
BUSY, CALM = 0.4, 0.15
"""Shares of a CPU: a stage is busy from the one on, and until it takes less than the other (large turns cost about
half)."""
WINDOW_S = 0.1
HEADROOM = 4
"""A stretched cycle must fit so many times into the perf ring that it fills most."""


class Pace:
    """Intervals until the next cycle."""

    def __init__(self) -> None:
        self.intervals = 1
        self._busy = False
        self._since_s = 0.0
        self._cpu_ns: Sequence[int] = ()

    def look(self, now_s: float, stages: Callable[[], Sequence[int]], moved: Sequence[tuple[int, int]]) -> None:
        """After a cycle. `stages`: CPU time that each has taken so far, ns; `moved`: (bytes, size) of the perf rings
        that were drained.
        """
        window_s = now_s - self._since_s
        if window_s >= WINDOW_S:
            cpu_ns = stages()
            shares = [(after - before) / window_s / 1e9 for after, before in zip(cpu_ns, self._cpu_ns, strict=False)]
            self._busy = max(shares, default=0.0) >= (CALM if self._busy else BUSY)
            self._since_s, self._cpu_ns = now_s, cpu_ns
        much = sum(moved_bytes for moved_bytes, _ in moved) / self.intervals >= LARGE_BYTES
        fits = all(size_bytes >= HEADROOM * STRETCH * moved_bytes / self.intervals for moved_bytes, size_bytes in moved)
        self.intervals = STRETCH if (self._busy or much) and fits else 1
