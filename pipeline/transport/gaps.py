"""The gap table: the time ranges in which events were lost. Consumers use it to qualify results.

    control segment:  journal of  count u64 | GAP[MAX_GAPS]        written by the reader, or by a replay

The reader commits the table before it publishes the watermark that has passed the loss: a worker that has reached a
watermark sees all losses before it. A gap that touches another gap of the same shard extends that gap. When the table
is full, the two closest gaps of one shard are merged. The table may overstate losses but never understates them.
"""

from __future__ import annotations

import numpy as np

from headrace.pipeline.transport.shm import Array, Journal, TableReader

MAX_GAPS = 512
NEAR_NS = 10_000_000
"""Gaps of a shard that are at most this far apart are merged."""
GAP = np.dtype(
    [("first_ns", "<u8"), ("last_ns", "<u8"), ("events", "<u8"), ("shard", "<u4"), ("shards", "<u4")], align=True
)
"""Times are CLOCK_BOOTTIME. A gap affects thread groups with `tgid % shards == shard`. With `shards == 0` it affects
all of them: lifecycle records were lost, from which every worker builds its process tree."""
TABLE = np.dtype([("count", "<u8"), ("gaps", GAP, MAX_GAPS)])


class GapTable:
    """The writer."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        state = journal.next[0]
        self._known: list[list[int]] = [list(gap) for gap in state["gaps"][: int(state["count"])].tolist()]
        self._changed = False

    def add(self, first_ns: int, last_ns: int, events: int, shard: int = 0, shards: int = 0) -> None:
        """Record that `events` events of a shard were lost in [first_ns, last_ns]."""
        self._changed = True
        for gap in reversed(self._known):
            if gap[3:] == [shard, shards] and first_ns <= gap[1] + NEAR_NS and gap[0] <= last_ns + NEAR_NS:
                gap[:3] = [min(gap[0], first_ns), max(gap[1], last_ns), gap[2] + events]
                return
        self._known.append([first_ns, last_ns, events, shard, shards])
        if len(self._known) > MAX_GAPS:
            self._join_nearest()

    def _join_nearest(self) -> None:
        self._known.sort(key=lambda gap: (gap[3:], gap[0]))
        pairs = [
            (later[0] - gap[1], i)
            for i, (gap, later) in enumerate(zip(self._known, self._known[1:], strict=False))
            if gap[3:] == later[3:]
        ]
        _, at = min(pairs)
        later = self._known.pop(at + 1)
        gap = self._known[at]
        gap[:3] = [gap[0], max(gap[1], later[1]), gap[2] + later[2]]

    def take(self, gaps: Array) -> None:
        """Replace all gaps. commit() publishes them."""
        self._known = [list(gap) for gap in gaps[:MAX_GAPS].tolist()]
        self._changed = True

    def commit(self) -> None:
        """Commit the table to the journal if it changed."""
        if not self._changed:
            return
        state = self._journal.next[0]
        state["count"] = len(self._known)
        state["gaps"][: len(self._known)] = [tuple(gap) for gap in self._known]
        self._journal.commit()
        self._changed = False


class GapReader(TableReader):
    """The reading side: GAP[n]. The first call of changed() returns the table even if it is empty."""

    field, seen = "gaps", -1
