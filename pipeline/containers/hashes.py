"""SHA-256 of executables (`--exec-hash`), computed by a separate process, the hasher.

    worker --request--> pipe --> hasher --> table in a segment --> every worker

A file is identified by device, inode and ctime, as the kernel reported them at exec. The hasher opens the file through
/proc/PID/exe while the process runs it, else by its path below the root of the process, else by its path on the host.
It accepts the file only if device, inode and ctime match, and the digest only if inode and ctime still match after
reading. Workers never wait for the hasher. A request that finds the pipe full is sent again later. If all places of a
key are taken, its entry replaces one of them.

A file system served by user space or by another host may never answer, and no signal interrupts such a call. The hasher
therefore opens a file with O_PATH first, looks up its mount, and only then accesses the file. A thread reads the file;
the hasher abandons the thread after DEADLINE_S.

    entry (64 bytes):  device u64 | inode u64 | ctime_ns u64 | state u64 | digest u8[32]

One writer: it stores state 0, then the rest, then the new state. A reader that sees the same state before and after has
a consistent entry. The hasher can read any file (see KEPT) but never interprets the contents.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import NamedTuple

import numpy as np

from headrace.bpf.host.mounts import mount_of, mounts, open_beneath
from headrace.pipeline.process import privilege
from headrace.pipeline.process.patient import Patient
from headrace.pipeline.process.plan import Plan, attach_control
from headrace.pipeline.transport.doorbell import InheritedFd, Questions, received
from headrace.pipeline.transport.shm import Array, Segment

ENTRY = np.dtype([("key", "<u8", 3), ("state", "<u8"), ("digest", "u1", 32)])
ENTRIES = 4096
PROBES = 8
REQUEST = struct.Struct("<QQQII")
MAX_PATH_BYTES = select.PIPE_BUF - REQUEST.size
"""Longest path in a request. A request fits into PIPE_BUF, so its write is atomic."""
MAX_FILE_BYTES = 1 << 30
NONE, KNOWN = 0, 1
REASONS = {2: "gone", 3: "changed", 4: "too large", 5: "not read", 6: "file system", 7: "too slow"}
GONE, CHANGED, TOO_LARGE, NOT_READ, SERVED, TOO_SLOW = REASONS
POLL_MS, BUSY_S = 100, 0.02
DEADLINE_S = 10.0
"""Deadline for one file. A file of MAX_FILE_BYTES bytes takes about two seconds from the page cache."""
MAX_WAITING = 4096
"""Maximum number of queued requests."""


class Key(NamedTuple):
    """Identity of a file, as reported by the kernel."""

    device: int
    inode: int
    ctime_ns: int


class HashRequest(NamedTuple):
    """A request to hash a file."""

    key: Key
    pid: int
    path: bytes

    def packed(self) -> bytes:
        """Encoded for the pipe. Truncates the path to MAX_PATH_BYTES."""
        path = self.path[:MAX_PATH_BYTES]
        return REQUEST.pack(*self.key, self.pid, len(path)) + path


class HashTable:
    """The table of digests in a segment."""

    def __init__(self, segment: Segment) -> None:
        self._entries: Array = segment.array(ENTRY, ENTRIES)
        self._oldest = 0

    @staticmethod
    def size() -> int:
        """Size of the segment in bytes."""
        return ENTRY.itemsize * ENTRIES

    def _places(self, key: Key) -> Iterator[int]:
        first = hash(key)
        return ((first + i) % ENTRIES for i in range(PROBES))

    def get(self, key: Key) -> tuple[int, bytes]:
        """(state, digest) of a file; state NONE if it is not in the table."""
        for place in self._places(key):
            entry = self._entries[place]
            state = int(entry["state"])
            if state and tuple(entry["key"].tolist()) == key:
                digest = entry["digest"].tobytes()
                if int(entry["state"]) == state and tuple(entry["key"].tolist()) == key:
                    return state, digest
        return NONE, b""

    def put(self, key: Key, state: int, digest: bytes = bytes(32)) -> None:
        """Store an entry. Only the hasher calls this.

        Overwrites the entry of the same file, else takes a free place, else replaces one of the PROBES candidates in
        turn.
        """
        places = list(self._places(key))
        mine = [p for p in places if tuple(self._entries[p]["key"].tolist()) == key]
        free = [p for p in places if not self._entries[p]["state"]]
        self._oldest = (self._oldest + 1) % PROBES
        entry = self._entries[(mine or free or [places[self._oldest]])[0]]
        entry["state"] = NONE
        entry["key"] = key
        entry["digest"] = np.frombuffer(digest, "u1")
        entry["state"] = state


class HashClient:
    """A worker's access to the table and the request pipe."""

    def __init__(self, plan: Plan) -> None:
        assert plan.hash_requests is not None
        self._table = HashTable(Segment(name=plan.hashes))
        self._questions = Questions(plan.hash_requests, ENTRIES)

    def look(self, key: tuple[int, int, int]) -> tuple[bytes, str] | None:
        """(digest, reason why there is no digest), or None if the file is not in the table yet."""
        state, digest = self._table.get(Key(*key))
        if state == NONE:
            return None
        return (digest, "") if state == KNOWN else (b"", REASONS[state])

    def ask(self, key: tuple[int, int, int], pid: int, path: bytes) -> None:
        """Request the digest of a file."""
        request = HashRequest(Key(*key), pid, path)
        self._questions.ask(request.key, request.packed())


def candidates(pid: int, path: bytes, remote: bool) -> Iterator[int]:
    """Yield O_PATH descriptors of candidates for a file of a process. Does not access the files themselves."""
    with contextlib.suppress(OSError):
        yield os.open(f"/proc/{pid}/exe", os.O_PATH | os.O_CLOEXEC)
    for root, whose in ((f"/proc/{pid}/root", pid), ("/", "self")):
        # skip paths through a served mount: resolving them may hang
        if b"\0" in path or (not remote and any(m.is_served and m.is_above(path) for m in mounts(whose))):
            continue
        with contextlib.suppress(OSError):
            at = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield open_beneath(at, path)
            finally:
                os.close(at)


def on_device(ways: Iterator[int], pid: int, device: int) -> Iterator[int]:
    """Yield the candidates that are on the file system with this device number. Closes each after its turn."""
    for fd in ways:
        try:
            mount = mount_of(fd, pid)
            if mount and mount.device == device:
                yield fd
        finally:
            os.close(fd)


def is_served(device: int, pid: int) -> bool:
    """Whether user space or another host serves the file system with this device number."""
    seen = (mount for whose in (pid, "self") for mount in mounts(whose))
    return any(mount.is_served and mount.device == device for mount in seen)


def is_file(fd: int, key: Key) -> bool:
    """Whether an open file is the regular file with this inode and ctime."""
    found = os.fstat(fd)
    return stat.S_ISREG(found.st_mode) and (found.st_ino, found.st_ctime_ns) == key[1:]


def _digest(fd: int, key: Key) -> tuple[int, bytes]:
    if os.fstat(fd).st_size > MAX_FILE_BYTES:
        return TOO_LARGE, bytes(32)
    try:
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return NOT_READ, bytes(32)
    return (KNOWN, digest) if is_file(fd, key) else (CHANGED, bytes(32))


def digest_of(request: HashRequest, remote: bool = False) -> tuple[int, bytes]:
    """(state, SHA-256) of a requested file. `remote`: also hash files served by user space or another host."""
    key, pid = request.key, request.pid
    if not remote and is_served(key.device, pid):
        return SERVED, bytes(32)
    for fd in on_device(candidates(pid, request.path, remote), pid, key.device):
        if is_file(fd, key):
            return _digest(fd, key)
    return GONE, bytes(32)


def requests(fd: int) -> Iterator[HashRequest]:
    """Yield all requests in the pipe."""
    for (device, inode, ctime_ns, pid), path in received(fd, REQUEST):
        yield HashRequest(Key(device, inode, ctime_ns), pid, path)


class Hasher:
    """Handles requests, one file at a time. A read that hangs delays the next request by at most DEADLINE_S."""

    def __init__(self, table: HashTable, read: Callable[[HashRequest], tuple[int, bytes]]) -> None:
        """`read` computes (state, digest) of a request, like digest_of()."""
        self._table = table
        self._waiting: deque[HashRequest] = deque()
        self._reading = Patient(read, DEADLINE_S)

    def ask(self, request: HashRequest) -> None:
        """Queue a request unless its result is already in the table."""
        if self._table.get(request.key)[0] in (NONE, GONE) and len(self._waiting) < MAX_WAITING:
            self._waiting.append(request)

    def attend(self, wait_s: float = 0.0) -> None:
        """Store a finished result, abandon a read that takes too long, and begin the next one.

        Waits up to `wait_s` for the current read.
        """
        if ended := self._reading.ended(wait_s):
            request, answer = ended
            self._table.put(request.key, *(answer or (TOO_SLOW, bytes(32))))
        while self._waiting and not self.is_busy:
            request = self._waiting.popleft()
            if self._table.get(request.key)[0] in (NONE, GONE) and not self._reading.begin(request):
                self._table.put(request.key, TOO_SLOW)

    @property
    def is_busy(self) -> bool:
        """Whether a file is being read."""
        return self._reading.is_busy


KEPT = (privilege.CAP_DAC_READ_SEARCH, privilege.CAP_SYS_PTRACE)
"""Capabilities to read any file, and to open it through /proc/PID of any process."""


def prepare(plan: Plan, source: InheritedFd) -> None:
    """Setup before privileges are dropped: close the standard streams and the pipe of multiprocessing's tracker.

    Other processes wait for the end of these. A hasher that hangs in a system call and outlives the run must not hold
    them open. (The supervisor waits for the end of its other pipe.)
    """
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    tracker = resource_tracker.getfd()
    if tracker is not None:
        os.close(tracker)


def run(plan: Plan, source: InheritedFd) -> None:
    """Run the hasher until all workers have ended."""
    control = attach_control(plan)
    hasher = Hasher(HashTable(Segment(name=plan.hashes)), lambda request: digest_of(request, plan.hashes_remote))
    poll = select.poll()
    poll.register(source.fd, select.POLLIN)
    while not all(worker.peek("ended").all() for worker in control.workers):
        poll.poll(0 if hasher.is_busy else POLL_MS)
        for request in requests(source.fd):
            hasher.ask(request)
        hasher.attend(BUSY_S)
