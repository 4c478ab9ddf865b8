"""Ring: one producer, one consumer, records of any length, in a shared-memory segment.

    byte 0     head: total bytes written    (stored by the producer, after the records)
    byte 8     promise: a watermark for which the ring had no room (stored by the producer, after head)
    byte 64    tail: total bytes released   (stored by the consumer, after it has copied what it needs)
    byte 128   data, a power of two of bytes

    record:  u32 payload bytes | u32 kind | payload, padded to 8
    A record never wraps. If it would, a PAD record fills the data up to the end.

Invariants: tail <= head <= tail + capacity, and [tail, head) contains only whole records.
The producer writes records after `head` and makes them visible together with publish(). A crash before publish() has no
effect: the next producer starts at `head` again. The producer and the consumer store positions in their journals
(pipeline/transport/shm.py).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from headrace.pipeline.transport.shm import Array, Segment, load_acquire, store_release

PAD, FRAME, WATERMARK, END, BATCH = range(5)
DATA_AT = 128
RECORD = struct.Struct("<II")
U64 = struct.Struct("<Q")


class Record(NamedTuple):
    """One record as the consumer sees it. `payload` is a view, invalid after release()."""

    kind: int
    payload: Array
    next: int


def record_bytes(payload_bytes: int) -> int:
    return RECORD.size + ((payload_bytes + 7) & ~7)


class Ring:
    """Common base of the two ends of a ring."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self.capacity = 1 << ((segment.size - DATA_AT).bit_length() - 1)
        self._head = segment.array("<u8", 1, 0)
        self._promise = segment.array("<u8", 1, 8)
        self._tail = segment.array("<u8", 1, 64)
        self._data = segment.array("u1", self.capacity, DATA_AT)
        self._view = self._data.data

    @staticmethod
    def bytes_for(capacity: int) -> int:
        """Size of a segment whose ring holds at least `capacity` bytes."""
        return DATA_AT + (1 << max(capacity - 1, 4095).bit_length())

    @property
    def head(self) -> int:
        """Total bytes made visible to the consumer."""
        return load_acquire(self._head)

    @property
    def tail(self) -> int:
        """Total bytes released by the consumer."""
        return load_acquire(self._tail)

    def close(self) -> None:
        """Drop the views. The segment itself is closed by its owner."""
        self._view.release()
        del self._head, self._promise, self._tail, self._data


class Producer(Ring):
    """The end that writes."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.write_position = self.head

    @property
    def used(self) -> int:
        """Bytes written and not yet released, including unpublished bytes."""
        return self.write_position - self.tail

    def try_reserve(self, payload_bytes: int, kind: int) -> Array | None:
        """Reserve one record and return a view of its payload, or None if the ring is full."""
        need = record_bytes(payload_bytes)
        at = self.write_position & (self.capacity - 1)
        to_end = self.capacity - at
        skip = to_end if need > to_end else 0
        if self.used + skip + need > self.capacity:
            return None
        if skip:
            RECORD.pack_into(self._view, at, to_end - RECORD.size, PAD)
            self.write_position += skip
            at = 0
        RECORD.pack_into(self._view, at, payload_bytes, kind)
        self.write_position += need
        return self._data[at + RECORD.size : at + RECORD.size + payload_bytes]

    def fits(self, payload_bytes: int, held: int = 0) -> bool:
        """Whether a record of this size always fits next to `held` unreleased records of that size and a PAD."""
        return record_bytes(payload_bytes) <= self.capacity // (2 + held)

    def publish(self) -> None:
        """Make everything written so far visible. The records are stored before `head`."""
        if self.write_position > self.head:  # after repeat_from(), records may be visible already
            store_release(self._head, self.write_position)

    def promise(self, watermark_ns: int) -> None:
        """Pass on the watermark when the ring has no room for a WATERMARK record.

        Without it, a consumer that releases records only after the next watermark would wait forever.
        """
        store_release(self._promise, watermark_ns)

    def restore_head(self, position: int) -> None:
        """Continue from a journaled position. Called at startup. Records behind it are taken back."""
        self.write_position = position
        store_release(self._head, position)

    def repeat_from(self, position: int) -> None:
        """Write the records behind a position once more, byte for byte. What is visible of them stays so: it may have
        been read already.
        """
        self.write_position = position


class Consumer(Ring):
    """The end that reads and releases."""

    @property
    def promised(self) -> int:
        """The promised watermark in ns. It covers all records up to a `head` that is read after it."""
        return load_acquire(self._promise)

    def read(self, position: int) -> Record | None:
        """The record at `position`, or None if the producer has not published it yet. Skips PAD records."""
        while position < self.head:
            at = position & (self.capacity - 1)
            payload_bytes, kind = RECORD.unpack_from(self._view, at)
            after = position + record_bytes(payload_bytes)
            if kind != PAD:
                return Record(kind, self._data[at + RECORD.size : at + RECORD.size + payload_bytes], after)
            position = after
        return None

    def release(self, position: int) -> None:
        """Release everything before `position`. Views into that range become invalid; finish reading them first."""
        store_release(self._tail, position)


def put(ring: Producer, kind: int, payload: bytes) -> bool:
    """Write one small record; False if the ring is full."""
    room = ring.try_reserve(len(payload), kind)
    if room is None:
        return False
    room[:] = np.frombuffer(payload, "u1")
    return True
