"""Recordings: frames and watermarks as the reader saw them, in a file, to run again anywhere.

    magic "HEADRACE" | u32 version | u32 header bytes | u32 crc32 of the header | u32 zero
    header (JSON: what views need of the host)
    block...   u32 bytes | u32 crc32 (begun with the kind) | u32 kind | u32 zero | payload padded to 8
    the last block is of kind END; a file without it was cut off

Kinds are those of the rings (pipeline/transport/ring.py), GAPS, and OFFSETS. The header carries the clock's offset,
the number of CPUs and shards, and the ledger's `produced` is the sum of what stands in the file.
"""

from __future__ import annotations

import mmap
import os
import select
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from headrace.bpf.layout import STREAM_FACTS
from headrace.config.settings import MAX_WORKERS
from headrace.pipeline.process.logs import logger
from headrace.pipeline.process.plan import READY_READER, Plan, attach_consumer, attach_control, attach_producer
from headrace.pipeline.process.progress import Progress
from headrace.pipeline.stages.reader import FINAL_WATERMARK
from headrace.pipeline.transport.clock import CpuClock
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.frames import HEADER, read_header
from headrace.pipeline.transport.gaps import GAP, MAX_GAPS, GapReader, GapTable
from headrace.pipeline.transport.offsets import STEP, OffsetReader, OffsetTable, are_steps
from headrace.pipeline.transport.ring import END, FRAME, U64, WATERMARK, Record
from headrace.pipeline.transport.shm import Array

MAGIC = b"HEADRACE"
VERSION, READS = 5, (4, 5)
"""What is written, and what is read: version 4 had no OFFSETS."""
GAPS = 16
"""Kind of a block: all gaps until now (pipeline/transport/gaps.py), GAP[n]; the last one holds."""
OFFSETS = 17
"""Kind of a block: how the wall clock was set until now (transport/offsets.py), STEP[n]; the last one holds."""
EX_DAMAGED = 65
"""Status of a replayer that has handed on all that stands before the damage."""
LEAD = struct.Struct("<8sIIII")
BLOCK = struct.Struct("<IIII")
LONGEST_BLOCK = 1 << 16
TURN_BYTES = 1 << 20
"""A replay leaves out watermarks until so much has gone by: turns of a live run are short for the sake
of latency, and a turn has a cost of its own. Which ones are left out depends on the file alone."""


TIME = msgspec.Meta(ge=0, le=1 << 62)
"""Of a time: with it, that of an event is still one of 64 bits."""
LONGEST_NAME = 256


class RecordingError(Exception):
    """A recording that cannot be read: not one, of another version, cut off or corrupted."""


class Users(msgspec.Struct, frozen=True):
    """Names of the host's users by their numbers, when it was begun; `others`: a directory service may know more."""

    names: dict[int, str]
    others: bool = False


class Facts(msgspec.Struct, frozen=True):
    """What a recording says about the host it was made on."""

    boot_epoch_ns: Annotated[int, TIME]
    nodename: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
    cpus: Annotated[int, msgspec.Meta(ge=1, le=8192)]
    shards: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORKERS)]
    machine: str
    made_by: str
    started_ns: Annotated[int, TIME]
    """CLOCK_BOOTTIME when it was begun."""
    hidden: tuple[str, ...] = ()
    """Arguments that were read for signatures, and that nobody asked to see."""
    events: tuple[str, ...] | None = None
    """What was recorded; None: the headrace that made it did not say."""
    reads: tuple[str, ...] = ()
    """Settings that were on and by which more is read."""
    narrowed: dict[str, str] = {}
    """Events of which only those were recorded that a condition holds for, and which."""
    users: Users | None = None


class Block(NamedTuple):
    """One block; `payload` is a view of the file's bytes."""

    kind: int
    payload: memoryview


def lead(facts: Facts) -> bytes:
    """The first bytes of a recording."""
    header = msgspec.json.encode(facts)
    header += b" " * (-(LEAD.size + len(header)) % 8)
    return LEAD.pack(MAGIC, VERSION, len(header), zlib.crc32(header), 0) + header


def block(kind: int, payload: memoryview | bytes) -> bytes:
    """One block's bytes."""
    return BLOCK.pack(len(payload), zlib.crc32(payload, kind), kind, 0) + bytes(payload) + bytes(-len(payload) % 8)


def read_facts(data: memoryview, name: str) -> tuple[Facts, int]:
    """Header of a recording and where its blocks begin; RecordingError if it is none."""
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
        return msgspec.json.decode(header, type=Facts), LEAD.size + size
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordingError(f"{name}: the header is corrupted: {error}") from error


def _is_block(kind: int, size: int) -> bool:
    if kind == GAPS:
        return size % GAP.itemsize == 0 and size <= MAX_GAPS * GAP.itemsize
    return kind in (FRAME, END, OFFSETS) or (kind == WATERMARK and size == U64.size)


def blocks(data: memoryview, at: int, name: str) -> Iterator[Block]:
    """All blocks; RecordingError where the file is cut off or a checksum does not fit."""
    while True:
        if at + BLOCK.size > len(data):
            raise RecordingError(f"{name}: cut off at byte {at}: the end is missing")
        size, checksum, kind, reserved = BLOCK.unpack_from(data, at)
        if size > LONGEST_BLOCK:
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
        yield Block(kind, payload)
        if kind == END:
            return
        at += BLOCK.size + size + (-size % 8)


def last_tables(data: memoryview, at: int) -> tuple[Array, Array]:
    """The gaps of a recording, GAP[n], and its clock's STEP[n], as far as it can be read: looked for before anything
    else, so that what is said of them does not depend on how far a worker is. Checksums are left to blocks().
    """
    found, steps = np.zeros(0, GAP), np.zeros(0, STEP)
    while at + BLOCK.size <= len(data):
        size, _, kind, _ = BLOCK.unpack_from(data, at)
        begin = at + BLOCK.size
        if kind == GAPS and size % GAP.itemsize == 0 and begin + size <= len(data):
            found = np.frombuffer(data[begin : begin + size], GAP)
        elif kind == OFFSETS and begin + size <= len(data) and are_steps(data[begin : begin + size]):
            steps = np.frombuffer(data[begin : begin + size], STEP)
        at = begin + size + (-size % 8)
    return found, steps


def last_gaps(data: memoryview, at: int) -> Array:
    """The gaps alone."""
    return last_tables(data, at)[0]


def opened(path: Path) -> InheritedFd:
    """The file, for the process that replays it; RecordingError if it cannot be read."""
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
    """The file's bytes, mapped; RecordingError if it cannot be read."""
    try:
        if os.fstat(file.fd).st_size == 0:
            raise RecordingError(f"{name}: not a headrace recording (empty)")
        return memoryview(mmap.mmap(file.fd, 0, prot=mmap.PROT_READ))
    except OSError as error:
        raise RecordingError(f"{name}: {error.strerror}") from error


def open_recording(path: Path) -> memoryview:
    """The bytes of a recording; RecordingError if it cannot be read."""
    file = opened(path)
    try:
        return mapped(file, str(path))
    finally:
        file.close()


class Recorder:
    """The recorder process: its ring to a file, whole blocks only."""

    def __init__(self, plan: Plan, target: InheritedFd, facts: Facts) -> None:
        self.plan, self._fd = plan, target.fd
        self.control = attach_control(plan)
        self.ring = attach_consumer(plan.rings[-1])
        self._gaps, self._offsets = GapReader(self.control.gaps), OffsetReader(self.control.offsets)
        self._progress, self._written = Progress(self.control.progress[-1:]), 0
        """Events in whole blocks."""
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
        """Write until END."""
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


def record(plan: Plan, target: InheritedFd, facts: Facts, path: str) -> None:
    """The recorder process; a full disk ends it and the supervisor says so."""
    try:
        Recorder(plan, target, facts).run()
    except OSError as error:
        logger("recorder").error("recorder.file_failed", file=path, reason=error.strerror)
        os._exit(74)


class Replayer:
    """Stands in the reader's place: a recording into the workers' rings, as fast as they take it."""

    def __init__(self, plan: Plan, data: memoryview, at: int, name: str) -> None:
        self.plan = plan
        self.control = attach_control(plan)
        self.journal = self.control.reader
        self.state = self.journal.next[0]
        self._cpu = CpuClock(int(self.state["cpu_ns"]))
        self.rings = [attach_producer(name) for name in plan.rings]
        for i, ring in enumerate(self.rings):
            ring.restore_head(int(self.state["ring_head"][i]))
        self._blocks = blocks(data, at, name)
        gaps, (lost, steps) = GapTable(self.control.gaps), last_tables(data, at)
        gaps.take(lost)
        gaps.commit()
        OffsetTable(self.control.offsets, plan.boot_epoch_ns).take(steps)

    def _targets(self, payload: memoryview) -> list[int]:
        """Workers that own a thread group in this frame. Shards fit if their number is a multiple."""
        if len(payload) < HEADER.size:
            return [0]
        header = read_header(bytes(payload[: HEADER.size]))
        plan = self.plan
        if header.stream == 0 and header.shards and header.shards % plan.workers == 0:
            return [header.shard % plan.workers]
        return list(range(plan.workers))

    def _put(self, worker: int, kind: int, payload: memoryview) -> None:
        ring = self.rings[worker]
        while (room := ring.try_reserve(len(payload), kind)) is None:
            self._publish()
            select.select([], [], [], 0.0005)
        room[:] = np.frombuffer(payload, "u1")

    def _publish(self) -> None:
        for ring, bell in zip(self.rings, self.plan.bells, strict=True):
            ring.publish()
            bell.ring()

    def run(self) -> int:
        """All blocks; returns an exit status."""
        status = 0
        state = self.state
        since = passed_ns = 0
        try:
            for kind, payload in self._blocks:
                if kind == FRAME:
                    if len(payload) >= HEADER.size:
                        header = read_header(bytes(payload[: HEADER.size]))
                        slot = -1 if header.stream == STREAM_FACTS else 0
                        state["received"][0, slot] += header.heads
                        state["frames"][0, 0] += 1
                    since += len(payload)
                    for worker in self._targets(payload):
                        self._put(worker, FRAME, payload)
                elif kind == WATERMARK and since >= TURN_BYTES:
                    since = 0
                    passed_ns = max(passed_ns, U64.unpack(payload)[0])
                    state["cpu_ns"] = self._cpu.now_ns()
                    for worker in range(self.plan.workers):
                        self._put(worker, WATERMARK, memoryview(U64.pack(passed_ns)))
                    self.journal.commit()
                    self._publish()
        except RecordingError as error:
            logger("replay").error("replay.recording_damaged", reason=str(error))
            status = EX_DAMAGED
        final = memoryview(U64.pack(FINAL_WATERMARK))
        for worker in range(self.plan.workers):
            self._put(worker, WATERMARK, final)
            self._put(worker, END, final)
        for i, ring in enumerate(self.rings):
            state["ring_head"][i] = ring.write_position
        state["cpu_ns"] = self._cpu.now_ns()
        self.journal.commit()
        self._publish()
        return status


def replay(plan: Plan, file: InheritedFd, path: str) -> None:
    """The process that reads a recording, which was opened for it."""
    data = mapped(file, path)
    _, at = read_facts(data, path)
    replayer = Replayer(plan, data, at, path)
    replayer.control.ready[READY_READER] = 1
    status = replayer.run()
    if status:
        os._exit(status)
