"""Clocks. Records carry CLOCK_BOOTTIME; outputs carry the epoch."""

from __future__ import annotations

import time


def boottime_ns() -> int:
    """CLOCK_BOOTTIME, as bpf_ktime_get_boot_ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_epoch_ns() -> int:
    """CLOCK_REALTIME minus CLOCK_BOOTTIME, the best of a few readings (within a microsecond)."""
    best: tuple[int, int] | None = None
    for _ in range(5):
        before = boottime_ns()
        real = time.time_ns()
        after = boottime_ns()
        if best is None or after - before < best[0]:
            best = (after - before, real - (before + after) // 2)
    assert best is not None
    return best[1]


class CpuClock:
    """CPU time of a stage, over the deaths of its processes: `before` is what the journal has."""

    def __init__(self, before_ns: int) -> None:
        self._before_ns = before_ns

    def now_ns(self) -> int:
        """CPU time of this process and its predecessors."""
        return self._before_ns + time.process_time_ns()
