"""Pending losses in the reader, announced as `loss` events in worker 0's ring at most every ANNOUNCE_EVERY_NS.

Losses of one CPU and shard are announced together. A loss for which the ring has no room stays pending.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.pipeline.process.logs import logger
from headrace.pipeline.transport.clock import boottime_ns
from headrace.pipeline.transport.frames import Loss
from headrace.pipeline.transport.ring import FRAME, Producer, put

ANNOUNCE_EVERY_NS = 100_000_000
LOG_EVERY_NS = 1_000_000_000


class Losses:
    """Pending losses. `frame_of` builds the frame of a loss with a given time. `recorder` receives a copy."""

    def __init__(self, frame_of: Callable[[Loss, int], bytes], ring: Producer, recorder: Producer | None) -> None:
        self._frame_of, self._ring, self._recorder = frame_of, ring, recorder
        self.owed: dict[tuple[int, int], Loss] = {}
        """Pending losses by (CPU, shard)."""
        self.announced_ns = 0
        """Time of the last announcement (CLOCK_BOOTTIME)."""
        self._logged_ns = self._unlogged = 0

    def add(self, loss: Loss) -> None:
        """Add a loss; merge it with a pending loss of the same CPU and shard."""
        key = (loss.cpu, loss.shard)
        before = self.owed.get(key)
        if before is not None:
            first = min(before.first_ns, loss.first_ns)
            loss = Loss(loss.cpu, loss.shard, before.count + loss.count, first, max(before.last_ns, loss.last_ns))
        self.owed[key] = loss

    @property
    def due(self) -> bool:
        """Whether losses are pending and ANNOUNCE_EVERY_NS have passed since the last announcement."""
        return bool(self.owed) and boottime_ns() - self.announced_ns >= ANNOUNCE_EVERY_NS

    def announce(self, watermark_ns: int, at_once: bool = False) -> int:
        """Announce all pending losses if `due`, or in any case with `at_once`. Returns the number of frames written.

        The events carry a time later than the watermark.
        """
        if not self.due and not (at_once and self.owed):
            return 0
        now, sent = boottime_ns(), 0
        self.announced_ns = now
        for key, loss in list(self.owed.items()):
            frame = self._frame_of(loss, max(now, watermark_ns + 1))
            if not put(self._ring, FRAME, frame):
                break
            if self._recorder is not None:
                put(self._recorder, FRAME, frame)
            sent += 1
            self._unlogged += loss.count
            del self.owed[key]
        if self._unlogged and now - self._logged_ns > LOG_EVERY_NS:
            logger("reader").warning("reader.events_lost", events=self._unlogged)
            self._logged_ns, self._unlogged = now, 0
        return sent
