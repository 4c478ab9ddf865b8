"""The watermark: a time up to which all records have been passed to the workers.

The BPF programs keep one mark per CPU and slot in a map, which this module maps (bpf/c/frame.h describes the order of
their stores). `busy` is set while a program writes; `first_ns` is the time of the oldest unsent record.

    1. T = now
    2. read busy of all marks, then first_ns of all marks
    3. read data_head of all perf rings, and drain up to there
    4. everything older than min(T, all first_ns that are set) is in the rings

A mark that is busy and has no time may be about to set one. The reader then samples again; if the mark stays that way,
the watermark does not advance. A record begun after step 2 has read the clock after T.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.bpf.layout import EVENTS, LOST_REASONS, MARK
from headrace.bpf.mapped import MappedArray
from headrace.pipeline.transport.clock import boottime_ns

Array = np.ndarray[Any, Any]
TRIES = 50


class Watermarks:
    """The marks of all CPUs and slots, MARK[cpus, slots]. `bound_ns` limits the lag of the watermark."""

    def __init__(self, fd: int, cpus: int, slots: int, bound_ns: int = 2**62) -> None:
        self.cpus, self.slots, self.bound_ns = cpus, slots, bound_ns
        self._mapped = MappedArray(fd, MARK, cpus * slots)
        self.array = self._mapped.array.reshape(cpus, slots)
        self._busy = self.array["busy"]
        self._first = self.array["first_ns"]
        self._watermark_ns = 0

    def any_waiting(self) -> bool:
        """Whether any CPU has an unsent record."""
        return bool(self._first.any())

    def waiting(self) -> Array:
        """Time of the oldest unsent record, u64[cpus, slots]; 0 if there is none."""
        return self._first.copy()

    def sample(self) -> int:
        """The watermark in ns. Call this before reading data_head.

        The watermark never goes back and never lags by more than `bound_ns`. Records that arrive after that are late.
        """
        for _ in range(TRIES):
            now = boottime_ns()
            busy = self._busy.copy()
            first = self._first.copy()
            if not ((busy != 0) & (first == 0)).any():
                waiting = first[first != 0]
                oldest = int(waiting.min()) if waiting.size else now
                self._watermark_ns = max(self._watermark_ns, min(now, oldest) - 1, now - self.bound_ns)
                return self._watermark_ns
        self._watermark_ns = max(self._watermark_ns, now - self.bound_ns)
        return self._watermark_ns

    def lost(self) -> Array:
        """Events lost in the kernel, u64[cpus, slots]."""
        total = np.zeros((self.cpus, self.slots), np.uint64)
        for reason in LOST_REASONS:
            total += self.array[reason]
        return total

    def close(self) -> None:
        """Drop the views and unmap."""
        del self.array, self._busy, self._first
        self._mapped.close()


def produced(fd: int, cpus: int) -> MappedArray:
    """Events counted by the programs, u64[EVENTS] per CPU, as a structured array with the field `events`."""
    return MappedArray(fd, np.dtype([("events", "<u8", EVENTS)]), cpus)
