"""Intake: what a worker takes from its ring, a turn at a time, and how much of it must stay there.

A turn is all frames up to the last watermark that is there. A worker that keeps up finds one; a worker that is
behind finds several, and takes them at once, since large turns cost less an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from headrace.pipeline.transport.frames import HEADER, read_header
from headrace.pipeline.transport.ring import END, FRAME, U64, WATERMARK, Consumer
from headrace.pipeline.transport.shm import Array

MAX_BYTES = 1 << 20
"""A turn ends with the first watermark behind so much."""


class Fed(NamedTuple):
    """A frame that was taken: where its record begins, and its last time."""

    start: int
    last_ns: int


class Intake:
    """The consumer's end of a ring of frames."""

    def __init__(self, ring: Consumer, feed: Callable[[Array], None]) -> None:
        """`feed` is given each frame."""
        self._ring, self._feed = ring, feed
        self._fed: list[Fed] = []
        self.position = 0
        """Behind the last record that was taken."""
        self.ended = 0
        """Behind the END, once it is the next record; 0 before."""

    def recover(self, released: int, position: int) -> None:
        """What a predecessor had taken up to `position`: its frames from `released` on once more."""
        self._ring.release(released)
        self.position = released
        self.take_up_to(position)

    def take_up_to(self, end: int) -> None:
        """All frames up to a position, whatever the watermarks say."""
        position = self.position
        while position < end and (record := self._ring.read(position)) is not None:
            if record.kind == FRAME:
                self._take(record.payload, position)
            position = record.next
        self.position = end

    def take(self, after_ns: int) -> int:
        """The frames of a turn: its watermark, 0 if there is none yet. One that was only promised must be later."""
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
        """Up to where records may go: frames whose last row is later stay, since after a death they are read again."""
        unripe = [fed for fed in self._fed if fed.last_ns > watermark_ns]
        end = unripe[0].start if unripe else self.position
        self._fed = [fed for fed in self._fed if fed.start >= end]
        return end

    def release(self, position: int) -> None:
        """Give records back."""
        self._ring.release(position)
