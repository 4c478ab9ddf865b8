"""Recordings with right checksums: the header, the blocks, the gap table and what a replay makes of them.

An input is `u16 bytes of the header | header (JSON) | blocks`, a block `u8 kind | u16 bytes | payload`; the file around
it, with its lengths and checksums, is put right.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any, cast
from zlib import crc32

import msgspec
import numpy as np

from headrace.pipeline.stages.recording import (
    GAPS,
    LEAD,
    MAGIC,
    VERSION,
    RecordingError,
    RecordingFacts,
    block,
    blocks,
    last_gaps,
    read_facts,
)
from headrace.pipeline.transport.frames import Loss, loss_frame
from headrace.pipeline.transport.gaps import GAP, TABLE, GapTable
from headrace.pipeline.transport.ring import END, FRAME, WATERMARK
from headrace.pipeline.transport.shm import Journal
from headrace.workers.views import style
from tests.fuzz.samples import seeds as samples
from tests.fuzz.worker import BOOT_EPOCH_NS, FINAL_NS, Worker, claimed, records

FORM = ""
EACH = 1
TOKENS = (
    b'"boot_epoch_ns":4611686018427387904',
    b'"boot_epoch_ns":-1',
    b'"nodename":"',
    b'"cpus":8192',
    b'"shards":64',
    b'"hidden":["env"]',
    b'"started_ns":1e30',
    b"\\ud800",
    b'{"z":' * 20,
    b"\xff" * 8,
    bytes([WATERMARK, 8, 0]),
    bytes([FRAME, 0, 2]),
    bytes([GAPS, 32, 0]),
    bytes([END, 0, 0]),
)
LENGTH, PART = struct.Struct("<H"), struct.Struct("<BH")
NAME = "fuzzed.hrc"


def seeds() -> Iterator[bytes]:
    """Small whole recordings."""
    facts = msgspec.json.encode(RecordingFacts(BOOT_EPOCH_NS, "host", 2, 1, "x86_64", "fuzz", 1, ("env",)))
    gap = np.array([(1, 5000, 3, 0, 1)], GAP).tobytes()
    for i, sample in enumerate(samples()):
        if i % 30 == 0:
            frame = records(np.frombuffer(sample, np.uint8)[None, :])[0].tobytes()
            parts = [(FRAME, frame), (GAPS, gap), (WATERMARK, struct.pack("<Q", 1000)), (FRAME, frame), (END, b"")]
            yield LENGTH.pack(len(facts)) + facts + b"".join(PART.pack(k, len(p)) + p for k, p in parts)


def _file(data: bytes) -> bytes:
    """The recording, its checksums right."""
    size = LENGTH.unpack_from(data.ljust(2, b"\0"))[0]
    header, at = data[2 : 2 + size], 2 + size
    header += b" " * (-(LEAD.size + len(header)) % 8)
    made = [LEAD.pack(MAGIC, VERSION, len(header), crc32(header), 0) + header]
    while at + PART.size <= len(data):
        kind, size = PART.unpack_from(data, at)
        payload = data[at + PART.size : at + PART.size + size]
        made.append(block(kind, payload))
        at += PART.size + size
    return b"".join(made)


@cache
def _worker() -> Worker:
    return Worker(("json",))


class Gaps:
    """A journal that one process has."""

    def __init__(self) -> None:
        self.next = np.zeros(1, TABLE)

    def commit(self) -> None:
        return


def target(data: bytes) -> None:
    view = memoryview(_file(data))
    try:
        facts, at = read_facts(view, NAME)
    except RecordingError:
        return
    worker, seen, expected = _worker(), 0, 0
    worker.know(style.HostFacts(facts.boot_epoch_ns, facts.started_ns if len(data) % 2 else None))
    assert worker.detector is not None
    _gaps(view, at, worker)
    _frame(loss_frame(Loss(0, 0, 1, 1, 2), 1, facts.boot_epoch_ns, facts.nodename.encode()), worker)
    expected += 1
    try:
        for kind, payload in blocks(view, at, NAME):
            if kind == FRAME:
                expected += claimed(payload)
                _frame(bytes(payload), worker)
            elif kind == WATERMARK:
                seen += _events(worker, struct.unpack("<Q", payload)[0])
    except RecordingError:
        pass
    seen += _events(worker, FINAL_NS)
    assert seen == expected, "every event that a frame claims is shown or rejected"


def _gaps(view: memoryview, at: int, worker: Worker) -> None:
    assert worker.detector is not None
    journal = Gaps()
    table = GapTable(cast(Journal, cast(Any, SimpleNamespace(next=journal.next, commit=journal.commit))))
    table.take(last_gaps(view, at))
    table.commit()
    worker.detector.gaps.know(journal.next[0]["gaps"][: int(journal.next[0]["count"])])


def _frame(data: bytes, worker: Worker) -> None:
    worker.core.feed(np.frombuffer(data, "u1"))


def _events(worker: Worker, watermark_ns: int) -> int:
    batch = worker.turn(watermark_ns)
    return len(batch.rows) + batch.rejected + batch.observed
