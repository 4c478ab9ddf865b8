"""SHA-256 of executables, computed by a process of its own (`--exec-hash`).

    worker --request--> pipe --> hasher --> table in a segment --> every worker

A file is known by device, inode and ctime: what the kernel said of it when it was run. The hasher opens it by
/proc/PID/exe while the process runs it, else by its path below the process's root, else by its path on the host, and
believes what it reads only if inode and ctime are those, before and after. Nobody waits for it here: a request that
finds the pipe full is asked again, and the table forgets what was not asked for lately when it needs the place.

    entry (64 bytes):  device u64 | inode u64 | ctime_ns u64 | state u64 | digest u8[32]

One writer: state 0, then the rest, then the new state. Who reads the same state before and after has a whole entry.
The hasher keeps the right to read any file, and no other: it never interprets what it reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline import privilege
from pipeline.doorbell import InheritedFd, Questions
from pipeline.plan import Plan, attach_control
from pipeline.shm import Array, Segment

ENTRY = np.dtype([("key", "<u8", 3), ("state", "<u8"), ("digest", "u1", 32)])
ENTRIES = 4096
PROBES = 8
REQUEST = struct.Struct("<QQQII")
LONGEST_PATH = select.PIPE_BUF - REQUEST.size
"""A request is written as a whole or not at all."""
LARGEST_FILE = 1 << 30
NONE, KNOWN = 0, 1
REASONS = {2: "gone", 3: "changed", 4: "too large", 5: "not read"}
GONE, CHANGED, TOO_LARGE, NOT_READ = REASONS
POLL_MS = 100


class Key(NamedTuple):
    """A file as the kernel had it."""

    device: int
    inode: int
    ctime_ns: int


class Request(NamedTuple):
    """A file that someone wants to know about."""

    key: Key
    pid: int
    path: bytes

    def packed(self) -> bytes:
        """As it goes through the pipe."""
        path = self.path[:LONGEST_PATH]
        return REQUEST.pack(*self.key, self.pid, len(path)) + path


class Table:
    """What is known of files, in a segment."""

    def __init__(self, segment: Segment) -> None:
        self._entries: Array = segment.array(ENTRY, ENTRIES)
        self._oldest = 0

    @staticmethod
    def size() -> int:
        """Size of the segment."""
        return ENTRY.itemsize * ENTRIES

    def _places(self, key: Key) -> Iterator[int]:
        first = hash(key)
        return ((first + i) % ENTRIES for i in range(PROBES))

    def get(self, key: Key) -> tuple[int, bytes]:
        """(state, digest); state NONE if nothing is known yet."""
        for place in self._places(key):
            entry = self._entries[place]
            state = int(entry["state"])
            if state and tuple(entry["key"].tolist()) == key:
                digest = entry["digest"].tobytes()
                if int(entry["state"]) == state and tuple(entry["key"].tolist()) == key:
                    return state, digest
        return NONE, b""

    def put(self, key: Key, state: int, digest: bytes = bytes(32)) -> None:
        """Hasher alone: over the same file, a free place, or one of those that it may have, in turn."""
        places = list(self._places(key))
        mine = [p for p in places if tuple(self._entries[p]["key"].tolist()) == key]
        free = [p for p in places if not self._entries[p]["state"]]
        self._oldest = (self._oldest + 1) % PROBES
        entry = self._entries[(mine or free or [places[self._oldest]])[0]]
        entry["state"] = NONE
        entry["key"] = key
        entry["digest"] = np.frombuffer(digest, "u1")
        entry["state"] = state


class Client:
    """A worker's view of the table, and its way to ask."""

    def __init__(self, plan: Plan) -> None:
        assert plan.hash_requests is not None
        self._table = Table(Segment(name=plan.hashes))
        self._questions = Questions(plan.hash_requests, ENTRIES)

    def look(self, key: tuple[int, int, int]) -> tuple[bytes, str] | None:
        """(digest, why there is none), or None if nothing is known yet."""
        state, digest = self._table.get(Key(*key))
        if state == NONE:
            return None
        return (digest, "") if state == KNOWN else (b"", REASONS[state])

    def ask(self, key: tuple[int, int, int], pid: int, path: bytes) -> None:
        """Ask for a file."""
        request = Request(Key(*key), pid, path)
        self._questions.ask(request.key, request.packed())


def _opened(request: Request) -> Iterator[int]:
    """Descriptors of what may be the file; each is closed behind it."""
    own = f"/proc/{request.pid}"
    for name in (f"{own}/exe".encode(), f"{own}/root".encode() + request.path, request.path):
        with contextlib.suppress(OSError, ValueError):
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            try:
                yield fd
            finally:
                os.close(fd)


def _is(fd: int, key: Key) -> bool:
    found = os.fstat(fd)
    return stat.S_ISREG(found.st_mode) and (found.st_ino, found.st_ctime_ns) == key[1:]


def digest_of(request: Request) -> tuple[int, bytes]:
    """(state, SHA-256) of the file that a request means."""
    for fd in _opened(request):
        if not _is(fd, request.key):
            continue
        if os.fstat(fd).st_size > LARGEST_FILE:
            return TOO_LARGE, bytes(32)
        try:
            with os.fdopen(fd, "rb", closefd=False) as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except OSError:
            return NOT_READ, bytes(32)
        return (KNOWN, digest) if _is(fd, request.key) else (CHANGED, bytes(32))
    return GONE, bytes(32)


def requests(fd: int) -> Iterator[Request]:
    """What stands in the pipe now."""
    while True:
        try:
            head = os.read(fd, REQUEST.size)
        except BlockingIOError:
            return
        if len(head) < REQUEST.size:
            return
        device, inode, ctime_ns, pid, length = REQUEST.unpack(head)
        yield Request(Key(device, inode, ctime_ns), pid, os.read(fd, length) if length else b"")


def run(plan: Plan, source: InheritedFd) -> None:
    """The hasher, until all workers have ended."""
    privilege.keep(privilege.CAP_DAC_READ_SEARCH, privilege.CAP_SYS_PTRACE)
    control = attach_control(plan)
    table = Table(Segment(name=plan.hashes))
    poll = select.poll()
    poll.register(source.fd, select.POLLIN)
    while not all(worker.peek("ended").all() for worker in control.workers):
        poll.poll(POLL_MS)
        for request in requests(source.fd):
            if table.get(request.key)[0] in (NONE, GONE):
                table.put(request.key, *digest_of(request))
