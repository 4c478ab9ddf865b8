"""The offset table: the times at which the wall clock was set, and its offset from then on.

    control segment:  journal of  count u64 | STEP[MAX_STEPS]        written by the reader, or by a replay

Records carry CLOCK_BOOTTIME. Before the first step, the offset of the plan applies. Both clocks are slewed alike: the
offset changes only when the wall clock is set, and at a leap second. The reader checks it in every cycle, and
immediately when a timer reports that the clock was set. It commits the table before it publishes the watermark: a
worker that has reached a watermark knows all steps before it. A recording stores the table as a block.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.pipeline.transport.clock import boottime_ns, sample_offset
from headrace.pipeline.transport.shm import Array, Journal, TableReader

MAX_STEPS = 512
"""When the table is full, the oldest step is dropped. Events before the oldest known step use the plan's offset."""
TOLERANCE_NS = 100_000
"""Largest difference between two readings that does not count as a step."""
LAST_NS = 1 << 62
STEP = np.dtype([("since_ns", "<u8"), ("offset_ns", "<i8")])
"""`offset_ns` is CLOCK_REALTIME minus CLOCK_BOOTTIME, valid from `since_ns` (CLOCK_BOOTTIME) on."""
TABLE = np.dtype([("count", "<u8"), ("steps", STEP, MAX_STEPS)])


class OffsetTable:
    """The writer. `base_ns` is the offset before the first step."""

    def __init__(
        self,
        journal: Journal,
        base_ns: int,
        sample: Callable[[], tuple[int, int]] = sample_offset,
        now: Callable[[], int] = boottime_ns,
    ) -> None:
        self._journal, self._base_ns, self._sample, self._now = journal, base_ns, sample, now
        state = journal.next[0]
        self._steps: Array = state["steps"][: int(state["count"])].copy()

    def look(self) -> bool:
        """Add a step if the wall clock was set since the last call; return whether it was."""
        offset_ns, doubt_ns = self._sample()
        offset_ns = max(0, offset_ns)
        known = int(self._steps["offset_ns"][-1]) if len(self._steps) else self._base_ns
        if abs(offset_ns - known) <= TOLERANCE_NS + doubt_ns:
            return False
        step = np.array([(self._now(), offset_ns)], STEP)
        self.take(np.concatenate([self._steps, step])[-MAX_STEPS:])
        return True

    def take(self, steps: Array) -> None:
        """Replace all steps and commit the table."""
        self._steps, state = steps, self._journal.next[0]
        state["count"] = len(steps)
        state["steps"][: len(steps)] = steps
        self._journal.commit()

    def at(self, time_ns: int) -> int:
        """The offset in ns that was valid at `time_ns` (CLOCK_BOOTTIME)."""
        index = int(np.searchsorted(self._steps["since_ns"], np.uint64(time_ns), "right"))
        return int(self._steps["offset_ns"][index - 1]) if index else self._base_ns


class OffsetReader(TableReader):
    """The reading side: all steps, STEP[n]."""

    field = "steps"


def are_steps(data: bytes | memoryview) -> bool:
    """Whether `data` is at most MAX_STEPS steps in strictly ascending order, with all values in [0, LAST_NS]."""
    if len(data) % STEP.itemsize or len(data) > MAX_STEPS * STEP.itemsize:
        return False
    steps = np.frombuffer(data, STEP)
    since, offset = steps["since_ns"], steps["offset_ns"]
    return bool(
        (since[1:] > since[:-1]).all() and (since <= LAST_NS).all() and ((offset >= 0) & (offset <= LAST_NS)).all()
    )
