"""Results that a worker passes to the publisher: one BATCH record per rendered piece of a turn.

RESULT header | keys (only if lines must be merged) | payload

keys:  time u64[rows] | tie u64[rows] (CPU << 32 | thread group) | end of each line u32[rows], padded to 8
       findings also have:  MARK[rows]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from headrace.config.thresholds import MARK
from headrace.pipeline.transport.ring import BATCH, Producer
from headrace.pipeline.transport.shm import Array

Buffer = bytes | memoryview
RESULT = np.dtype(
    [
        ("watermark_ns", "<u8"),
        ("rows", "<u4"),
        ("covered", "<u4"),
        ("skipped", "<u4"),
        ("render", "<u2"),
        ("topic", "<u2"),
        ("final", "u1"),
        ("pad", "u1", 3),
        ("key_bytes", "<u4"),
        ("payload_bytes", "<u4"),
    ]
)
"""`covered`: in an empty record, the number of rows of the turn that went out under separate topics instead. In the
record of such a topic, the number of rows to count there. `skipped`: rows of the turn that the policies of the outputs
leave out."""


class Result(NamedTuple):
    """One record; `payload` and `keys` are views into the ring."""

    header: Any
    keys: Array
    payload: Array

    @property
    def rows(self) -> int:
        """Number of events in this record."""
        return int(self.header["rows"])

    def key_columns(self) -> tuple[Array, Array, Array]:
        """(time u64[rows], tie u64[rows], end of line u32[rows])."""
        n = self.rows
        return (
            self.keys[: 8 * n].view("<u8"),
            self.keys[8 * n : 16 * n].view("<u8"),
            self.keys[16 * n : 20 * n].view("<u4"),
        )

    def marks(self) -> Array:
        """MARK[rows]. Only records of findings have it."""
        n = self.rows
        at = (20 * n + 7) & ~7
        return self.keys[at : at + MARK.itemsize * n].view(MARK)


def key_bytes(time_ns: Array, tie: Array, ends: Array) -> bytes:
    """The serialized keys of a batch, without marks, padded to 8 bytes."""
    data = time_ns.astype("<u8").tobytes() + tie.astype("<u8").tobytes() + ends.astype("<u4").tobytes()
    return data + bytes(-len(data) % 8)


def try_write(ring: Producer, header: Array, keys: bytes, payload: Sequence[Buffer]) -> bool:
    """Write one record to the ring, with the parts of the payload concatenated. False if the ring is full.

    Sets `key_bytes` and `payload_bytes` of `header`. The record is not published yet.
    """
    header["key_bytes"], header["payload_bytes"] = len(keys), sum(map(len, payload))
    room = ring.try_reserve(RESULT.itemsize + len(keys) + int(header["payload_bytes"][0]), BATCH)
    if room is None:
        return False
    at = RESULT.itemsize
    room[:at] = header.view("u1").reshape(-1)
    for part in (keys, *payload):
        if len(part):
            room[at : at + len(part)] = np.frombuffer(part, "u1")
            at += len(part)
    return True


def read(view: Array) -> Result:
    """The record in `view`."""
    header = view[: RESULT.itemsize].view(RESULT)[0]
    at = RESULT.itemsize
    middle = at + int(header["key_bytes"])
    return Result(header, view[at:middle], view[middle:])
