"""Frames made by hand: packed with `struct` as bpf/c/layout.h draws them, without bpf/layout.py.

frame:   header 184 bytes (bitmap included) | cells of 32 bytes
context  7 cells;  record  head (argument 0), other arguments 4 a cell, blobs 8-aligned, padded to 32
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CELL = 32
HEADER = struct.Struct("<IIQQQHBBHHII128sQ")
CONTEXT = struct.Struct("<6Q32s15IBBH16s64s")
HEAD = struct.Struct("<QqHHHBBQ")
BLOB = struct.Struct("<HBBI")
VERSION = 2

COMPAT, ENTRY, NOT_RUN, EXEC_IMAGE = 1, 2, 4, 16
OK, CUT, FAULT, NULL = 0, 1, 2, 3

# numbers of arch/x86/entry/syscalls/syscall_64.tbl
READ, WRITE, CLOSE, MMAP, NANOSLEEP, CONNECT, CLONE, EXECVE, GETCWD, GETPPID, EXIT, OPENAT, CLONE3 = (
    0,
    1,
    3,
    9,
    35,
    42,
    56,
    59,
    79,
    110,
    60,
    257,
    435,
)
ARGUMENTS = {
    READ: 3,
    WRITE: 3,
    CLOSE: 1,
    MMAP: 6,
    NANOSLEEP: 2,
    CONNECT: 3,
    CLONE: 5,
    EXECVE: 3,
    GETCWD: 2,
    GETPPID: 0,
    EXIT: 1,
    OPENAT: 4,
    CLONE3: 2,
}

CONTEXT_BYTES = CONTEXT.size


@dataclass(frozen=True)
class Who:
    """A process context."""

    tgid: int = 100
    tid: int = 100
    ppid: int = 1
    ns_tgid: int = 10
    ns_tid: int = 11
    ns_ppid: int = 12
    uid: int = 1000
    gid: int = 1001
    euid: int = 1002
    mntns: int = 4026531840
    pidns: int = 4026531836
    utsns: int = 4026531838
    comm: bytes = b"task"
    nodename: bytes = b"host"
    thread_start_ns: int = 5_000
    process_start_ns: int = 4_000
    parent_start_ns: int = 3_000
    cgroup_id: int = 77
    exe_inode: int = 555
    cap_effective: int = 0
    container: bytes = b""
    exe_dev: int = 8 << 20 | 1
    loginuid: int = 2**32 - 1
    sessionid: int = 2**32 - 1
    runtime: int = 0
    container_state: int = 0

    def packed(self) -> bytes:
        """224 bytes."""
        starts = (self.thread_start_ns, self.process_start_ns, self.parent_start_ns, self.cgroup_id)
        objects = (self.exe_inode, self.cap_effective, self.container)
        ids = (self.tgid, self.tid, self.ppid, self.ns_tgid, self.ns_tid, self.ns_ppid)
        rest = (self.uid, self.gid, self.euid, self.mntns, self.pidns, self.utsns)
        audit = (self.exe_dev, self.loginuid, self.sessionid, self.runtime, self.container_state, 0)
        return CONTEXT.pack(*starts, *objects, *ids, *rest, *audit, self.comm, self.nodename)


@dataclass(frozen=True)
class Blob:
    """What stood behind a pointer."""

    arg: int
    data: bytes = b""
    status: int = OK
    whole: int = 0

    def packed(self) -> bytes:
        """Header and data, padded to 8."""
        return BLOB.pack(len(self.data), self.arg, self.status, self.whole) + self.data + bytes(-len(self.data) % 8)


@dataclass(frozen=True)
class Record:
    """One event."""

    event: int = GETPPID
    time_ns: int = 1_000_000
    args: tuple[int, ...] = ()
    retval: int = 0
    flags: int = 0
    blobs: tuple[Blob, ...] = ()
    who: Who = field(default_factory=Who)

    def packed(self, context_cell: int) -> bytes:
        """The whole record, a multiple of 32 bytes."""
        count = ARGUMENTS.get(self.event, len(self.args))
        args = [*self.args, *[0] * (count - len(self.args))][:count]
        rest = b"".join(struct.pack("<Q", a & 2**64 - 1) for a in args[1:])
        rest += bytes(-len(rest) % CELL) + b"".join(b.packed() for b in self.blobs)
        rest += bytes(-len(rest) % CELL)
        first = args[0] & 2**64 - 1 if args else 0
        cells = 1 + len(rest) // CELL
        head = HEAD.pack(self.time_ns, self.retval, self.event, context_cell, cells, self.flags, len(self.blobs), first)
        return head + rest


def frame(records: Sequence[Record], cpu: int = 0, shard: int = 0, shards: int = 1, **changed: Any) -> bytes:
    """A frame of these records, whole and sound; `changed` overrides fields of its header."""
    cells, bitmap, current, at = b"", 0, None, 0
    for record in records:
        if record.who != current:
            current, at = record.who, len(cells) // CELL
            cells += record.who.packed()
        bitmap |= 1 << len(cells) // CELL
        cells += record.packed(at)
    times = [r.time_ns for r in records] or [0]
    fields = {
        "size": HEADER.size - 4 + len(cells),
        "cpu": cpu,
        "sequence": 0,
        "first_ns": times[0],
        "last_ns": times[-1],
        "shard": shard,
        "stream": 0,
        "version": VERSION,
        "heads": len(records),
        "context": at,
        "used": len(cells),
        "shards": shards,
        "bitmap": bitmap.to_bytes(128, "little"),
        "reserved": 0,
    } | changed
    return HEADER.pack(*fields.values()) + cells


def claimed(data: bytes) -> int:
    """Events that a frame's header claims; 0 if there is not even the fixed part of one."""
    return int.from_bytes(data[36:38], "little") if len(data) >= 48 else 0


def view(data: bytes) -> np.ndarray[Any, Any]:
    """A frame as it lies in a ring."""
    return np.frombuffer(data, "u1")
