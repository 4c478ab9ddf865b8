"""Frames of a recording with right checksums: whatever they hold, every event is shown or rejected.

An input is one frame: of some children the header fits their length and heads, so that what stands behind it is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

import numpy as np

from headrace.bpf.layout import BITMAP_WORDS, FRAME, FRAME_CELLS, FRAME_VERSION
from headrace.pipeline.stages.recording import RecordingFacts, block, blocks, lead, read_facts
from headrace.pipeline.transport.ring import END, WATERMARK
from headrace.pipeline.transport.ring import FRAME as FRAME_BLOCK
from tests.fuzz.mutation import Array, children
from tests.fuzz.samples import seeds as samples
from tests.fuzz.worker import BOOT_EPOCH_NS, FINAL_NS, Worker, claimed, records

FORM = ""
EACH = 64
TOKENS: tuple[bytes, ...] = ()
NAME = "fuzzed.hrc"
FACTS = lead(RecordingFacts(BOOT_EPOCH_NS, "host", 2, 1, "x86_64", "fuzz", 1))
SOUND, LIKELY = 24, 48
"""Of the children, so many have a header that fits; up to LIKELY, they have the version at least."""


def seeds() -> Iterator[bytes]:
    """Frames of one record and of two."""
    found = [records(np.frombuffer(sample, np.uint8)[None, :])[0].tobytes() for sample in samples()]
    yield from found[::7]
    size = FRAME.itemsize
    for one, two in zip(found[::20], found[1::20], strict=False):
        cells = (len(one) - size) // 32
        header = np.frombuffer(one[:size], FRAME).copy()
        header["heads"] = 2
        header["used"] = len(one) + len(two) - 2 * size
        header["bitmap"][0, (cells + 7) // 64] |= np.uint64(1 << (cells + 7) % 64)
        second = bytearray(two[size:])
        # the context of the second stands behind the first
        struct.pack_into("<H", second, 7 * 32 + 18, cells)
        yield header.tobytes() + one[size:] + bytes(second)


def _fitted(rows: Array) -> None:
    """Headers of the first rows say what their frame is."""
    if rows.shape[1] < FRAME.itemsize:
        return
    rows[:LIKELY, FRAME.fields["version"][1]] = FRAME_VERSION  # type: ignore[index]
    headers = rows[:SOUND, : FRAME.itemsize].copy().view(FRAME)[:, 0]
    headers["used"] = rows.shape[1] - FRAME.itemsize
    bits = np.unpackbits(headers["bitmap"].reshape(-1, BITMAP_WORDS).view(np.uint8), axis=1, bitorder="little")
    bits[:, min(FRAME_CELLS, (rows.shape[1] - FRAME.itemsize) // 32) :] = 0
    headers["bitmap"] = np.packbits(bits, axis=1, bitorder="little").view("<u8")
    headers["heads"] = bits.sum(axis=1)
    rows[:SOUND, : FRAME.itemsize] = headers[:, None].view(np.uint8)


@cache
def _worker() -> Worker:
    return Worker(("json", "table", "columns"))


def target(data: bytes) -> None:
    if len(data) >= FRAME.itemsize:
        data = data[: len(data) - (len(data) - FRAME.itemsize) % 32]
    rows = children(data, EACH)
    _fitted(rows)
    made = [FACTS, *(block(FRAME_BLOCK, row.tobytes()) for row in rows[: EACH // 2])]
    made.append(block(WATERMARK, struct.pack("<Q", int.from_bytes(data[16:24], "little") % FINAL_NS)))
    made += [*(block(FRAME_BLOCK, row.tobytes()) for row in rows[EACH // 2 :]), block(END, b"")]
    view = memoryview(b"".join(made))
    _, at = read_facts(view, NAME)
    worker, seen = _worker(), 0
    worker.begin()
    for kind, payload in blocks(view, at, NAME):
        if kind == FRAME_BLOCK:
            worker.core.feed(np.frombuffer(payload, "u1"))
        elif kind == WATERMARK:
            seen += _events(worker, struct.unpack("<Q", payload)[0])
    seen += _events(worker, FINAL_NS)
    assert seen == sum(map(claimed, rows)), "every event that a frame claims is shown or rejected"


def _events(worker: Worker, watermark_ns: int) -> int:
    batch = worker.turn(watermark_ns)
    return len(batch.rows) + batch.rejected + batch.observed
