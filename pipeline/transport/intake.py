"""Intake: takes one turn at a time from a worker's ring, and tracks which records must stay in the ring.

A turn is all frames up to the last watermark in the ring. A worker that keeps up finds one watermark. A worker that is
behind finds several and takes them in one turn, because large turns cost less per event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from headrace.pipeline.transport.frames import HEADER, read_header
from headrace.pipeline.transport.ring import END, FRAME, U64, WATERMARK, Consumer
from headrace.pipeline.transport.shm import Array

MAX_BYTES = 1 << 20
"""A turn ends at the first watermark after this many bytes."""


class Fed(NamedTuple):
    """A frame that was taken: the ring position of its record, and the time of its last row."""

    start: int
    last_ns: int


class Intake:
    """The consumer end of a ring of frames."""

    def __init__(self, ring: Consumer, feed: Callable[[Array], None]) -> None:
        """`feed` is called with each frame."""
        self._ring, self._feed = ring, feed
        self._fed: list[Fed] = []
        self.position = 0
        """Position after the last record that was taken."""
        self.ended = 0
        """Position after the END record once it is the next record; 0 before."""

    def recover(self, released: int, position: int) -> None:
        """Restore the state of a predecessor: take its frames in [released, position) again."""
        self._ring.release(released)
        self.position = released
        self.take_up_to(position)

    def take_up_to(self, end: int) -> None:
        """Take all frames up to position `end`, regardless of watermarks."""
        position = self.position
        while position < end and (record := self._ring.read(position)) is not None:
            if record.kind == FRAME:
                self._take(record.payload, position)
            position = record.next
        self.position = end

    def take(self, after_ns: int) -> int:
        """Take the frames of one turn and return its watermark in ns, or 0 if no watermark is available yet.

        A promised watermark (Producer.promise) counts only if it is later than `after_ns`.
        """
        start = position = self.position
        watermark_ns = 0
        while True:
            promised_ns = self._ring.promised
            record = self._ring.read(position)
            if record is None:
                if promised_ns > max(watermark_ns, after_ns):
                    watermark_ns = promised_ns
                break
            if record.kind == END:
                self.ended = 0 if watermark_ns else record.next
                break
            if record.kind == FRAME:
                self._take(record.payload, position)
            position = record.next
            if record.kind == WATERMARK:
                watermark_ns = U64.unpack(record.payload.tobytes())[0]
                if position - start >= MAX_BYTES:
                    break
        self.position = position
        return watermark_ns

    def _take(self, payload: Array, start: int) -> None:
        last_ns = read_header(payload[: HEADER.size].tobytes()).last_ns if len(payload) >= HEADER.size else 0
        self._fed.append(Fed(start, last_ns))
        self._feed(payload)

    def ripe(self, watermark_ns: int) -> int:
        """Position up to which records may be released.

        Frames whose last row is later than the watermark stay in the ring: a successor must read them again.
        """
        unripe = [fed for fed in self._fed if fed.last_ns > watermark_ns]
        end = unripe[0].start if unripe else self.position
        self._fed = [fed for fed in self._fed if fed.start >= end]
        return end

    def release(self, position: int) -> None:
        """Release all records before `position`."""
        self._ring.release(position)
