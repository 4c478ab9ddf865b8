"""Pace: the interval between the reader's cycles.

Each cycle causes one turn in every worker, and a turn costs a few milliseconds regardless of its size. While a stage is
busy, or cycles move a lot of data, the interval is longer: turns are larger and cost less per event. Otherwise the
interval is short, which keeps latency low.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

STRETCH = 3
"""Intervals between two cycles while a stage is busy or a lot of data moves."""
LARGE_BYTES = 96 << 10
"""Bytes per interval that count as a lot of data: three full frames."""
BUSY, CALM = 0.4, 0.15
"""CPU shares. A stage becomes busy at BUSY, and stays busy until its share falls below CALM. The two differ because
large turns take about half the CPU time."""
WINDOW_S = 0.1
HEADROOM = 4
"""Every drained perf ring must hold the data of this many stretched cycles; otherwise cycles are not stretched."""


class Pace:
    """Number of intervals until the next cycle."""

    def __init__(self) -> None:
        self.intervals = 1
        self._busy = False
        self._since_s = 0.0
        self._cpu_ns: Sequence[int] = ()

    def look(self, now_s: float, stages: Callable[[], Sequence[int]], moved: Sequence[tuple[int, int]]) -> None:
        """Update `intervals` after a cycle.

        `stages` returns the CPU time in ns that each stage has used so far. `moved` is (bytes drained, ring size) of
        each perf ring that was drained.
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
