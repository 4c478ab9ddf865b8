"""The offset table: when the wall clock was set, and what it showed from then on.

    control segment:  journal of  count u64 | STEP[MAX_STEPS]        written by the reader, or by a replay

Records carry CLOCK_BOOTTIME. Until the first step the offset is that of the plan. The two clocks are slewed alike, so
that the difference changes when somebody sets the wall clock, and at a leap second. The reader looks in every
cycle, at once when a timer says that the clock was set, and commits the table before it publishes the watermark:
a worker that has come to one knows of all steps before it. A recording has the table as a block.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.pipeline.transport.clock import boottime_ns, sample_offset
from headrace.pipeline.transport.shm import Array, Journal, TableReader

MAX_STEPS = 512
"""The oldest is forgotten when there are more: events from before the oldest that is known have the plan's offset."""
TOLERANCE_NS = 100_000
"""What two readings may differ by without a step."""
LAST_NS = 1 << 62
STEP = np.dtype([("since_ns", "<u8"), ("offset_ns", "<i8")])
"""From that time of CLOCK_BOOTTIME on: CLOCK_REALTIME minus CLOCK_BOOTTIME."""
TABLE = np.dtype([("count", "<u8"), ("steps", STEP, MAX_STEPS)])


class OffsetTable:
    """The writer's side. `base_ns`: the offset before the first step."""

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
        """Whether the wall clock was set since the last look."""
        offset_ns, doubt_ns = self._sample()
        offset_ns = max(0, offset_ns)
        known = int(self._steps["offset_ns"][-1]) if len(self._steps) else self._base_ns
        if abs(offset_ns - known) <= TOLERANCE_NS + doubt_ns:
            return False
        step = np.array([(self._now(), offset_ns)], STEP)
        self.take(np.concatenate([self._steps, step])[-MAX_STEPS:])
        return True

    def take(self, steps: Array) -> None:
        """Have these instead."""
        self._steps, state = steps, self._journal.next[0]
        state["count"] = len(steps)
        state["steps"][: len(steps)] = steps
        self._journal.commit()

    def at(self, time_ns: int) -> int:
        """The offset that held at a time."""
        index = int(np.searchsorted(self._steps["since_ns"], np.uint64(time_ns), "right"))
        return int(self._steps["offset_ns"][index - 1]) if index else self._base_ns


class OffsetReader(TableReader):
    """What others see of it: all steps, STEP[n]."""

    field = "steps"


def are_steps(data: bytes | memoryview) -> bool:
    """Whether these bytes are steps in order of time, with times that fit into 64 bits."""
    if len(data) % STEP.itemsize or len(data) > MAX_STEPS * STEP.itemsize:
        return False
    steps = np.frombuffer(data, STEP)
    since, offset = steps["since_ns"], steps["offset_ns"]
    return bool(
        (since[1:] > since[:-1]).all() and (since <= LAST_NS).all() and ((offset >= 0) & (offset <= LAST_NS)).all()
    )
