"""Recordings: files with the frames and watermarks that the reader saw. They can be replayed on any host.

    magic "HEADRACE" | u32 version | u32 header bytes | u32 crc32 of the header | u32 zero
    header (JSON: the facts about the host that views need)
    block...   u32 bytes | u32 crc32 (initialized with the kind) | u32 kind | u32 zero | payload padded to 8
    the last block has kind END; a file without it is truncated

The kinds are those of the rings (pipeline/transport/ring.py), GAPS, and OFFSETS. The header includes the clock offset
and the numbers of CPUs and shards. In a replay, the ledger's `produced` is the number of events in the file.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from headrace.bpf.layout import STREAM_FACTS
from headrace.config.settings import MAX_WORKERS
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import Plan, attach_consumer, attach_control
from headrace.pipeline.process.progress import Progress
from headrace.pipeline.stages.reader import FINAL_WATERMARK
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.frames import HEADER, read_header
from headrace.pipeline.transport.gaps import GAP, MAX_GAPS, GapReader
from headrace.pipeline.transport.offsets import STEP, OffsetReader, are_steps
from headrace.pipeline.transport.ring import END, FRAME, U64, WATERMARK, Record, record_bytes
from headrace.pipeline.transport.shm import Array

MAGIC = b"HEADRACE"
VERSION, READS = 5, (4, 5)
"""The version that is written, and the versions that can be read. Version 4 has no OFFSETS."""
GAPS = 16
"""Block kind: all gaps so far (pipeline/transport/gaps.py), GAP[n]. The last such block is authoritative."""
OFFSETS = 17
"""Block kind: all wall clock steps so far (pipeline/transport/offsets.py), STEP[n]. The last such block is
authoritative."""
EX_DAMAGED = 65
"""Exit status of a replayer that found damage. It has replayed everything before the damage."""
LEAD = struct.Struct("<8sIIII")
BLOCK = struct.Struct("<IIII")
MAX_BLOCK_BYTES = 1 << 16
TURN_BYTES = 1 << 20
"""A replay skips watermarks until this many bytes of frames have passed. Turns of a live run are short to keep latency
low, and each turn has a fixed cost. Which watermarks are skipped depends only on the file."""


TIME = msgspec.Meta(ge=0, le=1 << 62)
"""Range of a time in the header. An event's time plus this offset still fits into 64 bits."""
MAX_NAME = 256


class RecordingError(Exception):
    """The file is not a readable recording: wrong format, unsupported version, truncated or corrupted."""


class RecordedUsers(msgspec.Struct, frozen=True):
    """User names by uid when the recording began. `others`: a directory service may know more users."""

    names: dict[int, str]
    others: bool = False


class RecordingFacts(msgspec.Struct, frozen=True):
    """Facts about the recorded host and run, stored in the header of a recording."""

    boot_epoch_ns: Annotated[int, TIME]
    nodename: Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
    cpus: Annotated[int, msgspec.Meta(ge=1, le=8192)]
    shards: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)]
    machine: str
    made_by: str
    started_ns: Annotated[int, TIME]
    """CLOCK_BOOTTIME in ns when the recording began."""
    hidden: tuple[str, ...] = ()
    """Arguments that were read only for signatures and not shown."""
    events: tuple[str, ...] | None = None
    """The recorded events. None: written by a version of headrace that did not store them."""
    reads: tuple[str, ...] = ()
    """Enabled settings that make headrace read additional data."""
    narrowed: dict[str, str] = {}
    """Events recorded only if a condition holds, with that condition."""
    users: RecordedUsers | None = None


class RecordedBlock(NamedTuple):
    """One block. `payload` is a view into the file."""

    kind: int
    payload: memoryview


def lead(facts: RecordingFacts) -> bytes:
    """The encoded header of a recording, with magic and version."""
    header = msgspec.json.encode(facts)
    header += b" " * (-(LEAD.size + len(header)) % 8)
    return LEAD.pack(MAGIC, VERSION, len(header), zlib.crc32(header), 0) + header


def block(kind: int, payload: memoryview | bytes) -> bytes:
    """One encoded block."""
    return BLOCK.pack(len(payload), zlib.crc32(payload, kind), kind, 0) + bytes(payload) + bytes(-len(payload) % 8)


def read_facts(data: memoryview, name: str) -> tuple[RecordingFacts, int]:
    """The header of a recording and the byte offset of its first block. Raises RecordingError if it is invalid."""
    if len(data) < LEAD.size or bytes(data[:8]) != MAGIC:
        raise RecordingError(f"{name}: not a headrace recording")
    _, version, size, checksum, zero = LEAD.unpack_from(data)
    if version not in READS:
        raise RecordingError(
            f"{name}: recording of version {version}; this headrace reads versions {READS[0]} to {READS[-1]}"
        )
    header = bytes(data[LEAD.size : LEAD.size + size])
    if zlib.crc32(header) != checksum or zero:
        raise RecordingError(f"{name}: the header is corrupted: the checksum does not fit")
    try:
        return msgspec.json.decode(header, type=RecordingFacts), LEAD.size + size
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordingError(f"{name}: the header is corrupted: {error}") from error


def _is_block(kind: int, size: int) -> bool:
    if kind == GAPS:
        return size % GAP.itemsize == 0 and size <= MAX_GAPS * GAP.itemsize
    return kind in (FRAME, END, OFFSETS) or (kind == WATERMARK and size == U64.size)


def blocks(data: memoryview, at: int, name: str) -> Iterator[RecordedBlock]:
    """Yield all blocks from offset `at`. Raises RecordingError where the file is truncated or corrupted."""
    while True:
        if at + BLOCK.size > len(data):
            raise RecordingError(f"{name}: cut off at byte {at}: the end is missing")
        size, checksum, kind, reserved = BLOCK.unpack_from(data, at)
        if size > MAX_BLOCK_BYTES:
            raise RecordingError(f"{name}: corrupted at byte {at}: a block of {size} bytes")
        payload = data[at + BLOCK.size : at + BLOCK.size + size]
        if len(payload) < size:
            raise RecordingError(f"{name}: cut off at byte {at}: the end is missing")
        if zlib.crc32(payload, kind) != checksum:
            raise RecordingError(f"{name}: corrupted at byte {at}: the checksum does not fit")
        if not _is_block(kind, size):
            raise RecordingError(f"{name}: corrupted at byte {at}: a block of kind {kind} and {size} bytes")
        if any(data[at + BLOCK.size + size : at + BLOCK.size + size + (-size % 8)]) or reserved:
            raise RecordingError(f"{name}: corrupted at byte {at}: bytes that should be zero are not")
        if kind == WATERMARK and U64.unpack(payload)[0] > FINAL_WATERMARK:
            raise RecordingError(f"{name}: corrupted at byte {at}: a watermark that is no time")
        if kind == OFFSETS and not are_steps(payload):
            raise RecordingError(f"{name}: corrupted at byte {at}: times that are none")
        yield RecordedBlock(kind, payload)
        if kind == END:
            return
        at += BLOCK.size + size + (-size % 8)


def _unchecked(data: memoryview, at: int) -> Iterator[RecordedBlock]:
    """The blocks before END or the first one of an impossible size. Checksums are not verified here but in blocks()."""
    while at + BLOCK.size <= len(data):
        size, _, kind, _ = BLOCK.unpack_from(data, at)
        begin = at + BLOCK.size
        if size > MAX_BLOCK_BYTES or begin + size > len(data) or kind == END:
            return
        yield RecordedBlock(kind, data[begin : begin + size])
        at = begin + size + (-size % 8)


def last_tables(data: memoryview, at: int) -> tuple[Array, Array]:
    """The last gaps, GAP[n], and clock steps, STEP[n], of the readable part of a recording.

    A replay reads them first: results then do not depend on the progress of each worker.
    """
    found, steps = np.zeros(0, GAP), np.zeros(0, STEP)
    for kind, payload in _unchecked(data, at):
        if kind == GAPS and len(payload) % GAP.itemsize == 0:
            found = np.frombuffer(payload, GAP)
        elif kind == OFFSETS and are_steps(payload):
            steps = np.frombuffer(payload, STEP)
    return found, steps


def turn_bytes(data: memoryview, at: int) -> int:
    """The largest number of bytes that a ring must hold at a time in a replay: the frames since the last watermark that
    is passed on, and earlier frames from the first one that has later rows. A worker releases frames in order.
    """
    frames: deque[tuple[int, int]] = deque()
    longest = since = held = 0
    for kind, payload in _unchecked(data, at):
        size = len(payload)
        if kind == FRAME:
            last_ns = read_header(bytes(payload[: HEADER.size])).last_ns if size >= HEADER.size else 0
            frames.append((last_ns, record_bytes(size)))
            since, held = since + size, held + record_bytes(size)
            longest = max(longest, held)
        elif kind == WATERMARK and size == U64.size and since >= TURN_BYTES:
            since, watermark_ns = 0, U64.unpack(payload)[0]
            while frames and frames[0][0] <= watermark_ns:
                held -= frames.popleft()[1]
    return longest


def last_gaps(data: memoryview, at: int) -> Array:
    """The last gaps of a recording, GAP[n]."""
    return last_tables(data, at)[0]


def opened(path: Path) -> InheritedFd:
    """Open a recording for the process that replays it. Raises RecordingError if it is not a readable regular file."""
    try:
        file = InheritedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from error
    mode = os.fstat(file.fd).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        raise RecordingError(f"{path}: {'Is a directory' if stat.S_ISDIR(mode) else 'not a regular file'}")
    return file


def mapped(file: InheritedFd, name: str) -> memoryview:
    """Map an open recording. Raises RecordingError if it is empty or cannot be mapped."""
    try:
        if os.fstat(file.fd).st_size == 0:
            raise RecordingError(f"{name}: not a headrace recording (empty)")
        return memoryview(mmap.mmap(file.fd, 0, prot=mmap.PROT_READ))
    except OSError as error:
        raise RecordingError(f"{name}: {error.strerror}") from error


def open_recording(path: Path) -> memoryview:
    """Open and map a recording. Raises RecordingError if that fails."""
    file = opened(path)
    try:
        return mapped(file, str(path))
    finally:
        file.close()


class Recorder:
    """The recorder process: writes the records of its ring to a file as blocks."""

    def __init__(self, plan: Plan, target: InheritedFd, facts: RecordingFacts) -> None:
        self.plan, self._fd = plan, target.fd
        self.control = attach_control(plan)
        self.ring = attach_consumer(plan.rings[-1])
        self._gaps, self._offsets = GapReader(self.control.gaps), OffsetReader(self.control.offsets)
        self._progress, self._written = Progress(self.control.progress[-1:]), 0
        """Number of events in completely written blocks."""
        self._write(lead(facts))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def _write_block(self, record: Record) -> None:
        if record.kind == FRAME and len(record.payload) >= HEADER.size:
            header = read_header(record.payload[: HEADER.size].tobytes())
            self._written += 0 if header.stream == STREAM_FACTS else header.heads
        data = block(record.kind, record.payload.data)
        self._progress.begin(self._written, self._fd, len(data))
        self._write(data)
        self._progress.end(self._written)

    def run(self) -> None:
        """Write blocks until END."""
        position = self.ring.tail
        while True:
            record = self.ring.read(position)
            if record is None:
                self.plan.bells[-1].wait(1000)
                continue
            if record.kind != FRAME and (gaps := self._gaps.changed()) is not None and len(gaps):
                self._write(block(GAPS, gaps.tobytes()))
            if record.kind != FRAME and (steps := self._offsets.changed()) is not None:
                self._write(block(OFFSETS, steps.tobytes()))
            self._write_block(record)
            position = record.next
            self.ring.release(position)
            if record.kind == END:
                return


def record(plan: Plan, target: InheritedFd, facts: RecordingFacts, path: str) -> None:
    """Run the recorder process. A write error (such as a full disk) is logged and ends it with status 74."""
    try:
        Recorder(plan, target, facts).run()
    except OSError as error:
        logger("recorder").error("recorder.file_failed", file=path, reason=error.strerror)
        os._exit(74)
