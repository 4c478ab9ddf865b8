"""Shared-memory segments and their contents: typed arrays and a two-slot journal.

A segment has one owner, the supervisor, which creates and unlinks it. All other processes attach to it. All numpy views
are created with `np.frombuffer`: closing a segment that is still in use raises instead of leaving a dangling view.

Memory ordering: plain Python has no fence. x86-64 keeps stores in program order and loads in program order, and an
aligned 8-byte numpy store is one `mov`. A reader therefore sees the payload before the cursor. Other architectures
reorder; `require_total_store_order()` refuses to start there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import re
import resource
import secrets
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class UnorderedMemory(Exception):
    """This architecture may reorder stores, and plain Python has no fence."""


def require_total_store_order() -> None:
    """Raise UnorderedMemory unless other cores see plain stores in program order."""
    if platform.machine() != "x86_64":
        raise UnorderedMemory(f"the rings need x86-64's store order; {platform.machine()} would need a fence")


class NoSharedMemory(Exception):
    """A segment cannot be created, or /dev/shm has too little free space for all segments."""


FOLDER = Path("/dev/shm")
NAME = re.compile(r"headrace-(\d+)-(\d+)-[0-9a-f]+")
"""headrace-PID-START-RANDOM. START is the start time from /proc/PID/stat, in clock ticks since boot."""


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command name, starting with the state; [] if there is no such process."""
    with contextlib.suppress(OSError):
        # the command name is in parentheses and may itself contain parentheses
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return []


def start_of(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 if there is no such process."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def remove_orphans() -> list[str]:
    """Remove segments whose owner was killed together with all processes that would remove them; return their names.

    An owner in another PID namespace cannot be looked up. For that reason each owner holds a lock on its segments.
    """
    removed = []
    for path in FOLDER.glob("headrace-*"):
        found = NAME.fullmatch(path.name)
        if not found or start_of(int(found[1])) == int(found[2]):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed.append(path.name)
            finally:
                os.close(fd)
    return removed


def require_room(sizes: Sequence[int]) -> None:
    """Raise NoSharedMemory unless /dev/shm has room for segments of these sizes in bytes.

    Without this check, a process that fills the tmpfs is killed by SIGBUS.
    """
    found = os.statvfs(FOLDER)
    free, need = found.f_bavail * found.f_frsize, sum(sizes)
    if free < need:
        raise NoSharedMemory(
            f"{FOLDER} has {free >> 20} MiB free, and this run needs {-(-need >> 20)} MiB: make it larger"
            " (in a container: --shm-size), or set ring_bytes, result_bytes or workers lower"
        )


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Raise RLIMIT_FSIZE as far as permitted. The limit is meant for outputs, not for shared memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for wanted in (resource.RLIM_INFINITY, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_FSIZE, (wanted, wanted))
            break
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class _Mapping(shared_memory.SharedMemory):
    """A mapping without a finalizer: it is unmapped together with its last view."""

    def __del__(self) -> None:
        return


ATTACHED: dict[str, _Mapping] = {}
"""Segments mapped before this process dropped the privilege to open them."""


def attach(names: Iterable[str]) -> None:
    """Map segments now, so that Segment(name=...) can attach to them later."""
    for name in names:
        ATTACHED[name] = _Mapping(name=name)


def contents(name: str, size: int) -> bytes:
    """The first `size` bytes of a segment, read without mapping it."""
    with open(FOLDER / name, "rb") as file:
        return file.read(size)


class Segment:
    """One shared-memory segment, created (`size`) or attached to (`name`). Drop all views before `close()`.

    `ids` is the (uid, gid) that a new segment belongs to. Raises NoSharedMemory if it cannot be created.
    """

    def __init__(self, size: int = 0, name: str | None = None, ids: tuple[int, int] | None = None) -> None:
        self.owner = name is None
        self._lock = -1
        if name is None:
            self._memory = self._made(size)
            self._lock = os.open(FOLDER / self._memory.name, os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            if ids is not None:
                os.fchown(self._lock, *ids)
        else:
            self._memory = ATTACHED.pop(name) if name in ATTACHED else _Mapping(name=name)
        self.name = self._memory.name

    @staticmethod
    def _made(size: int) -> _Mapping:
        name = f"headrace-{os.getpid()}-{start_of(os.getpid())}-{secrets.token_hex(4)}"
        try:
            with _any_size():
                if 0 <= resource.getrlimit(resource.RLIMIT_FSIZE)[0] < size:
                    raise OSError(errno.EFBIG, "the limit on the size of files does not allow it (ulimit -f)")
                return _Mapping(name=name, create=True, size=size)
        except OSError as error:
            with contextlib.suppress(OSError):
                (FOLDER / name).unlink()
            raise NoSharedMemory(f"{size >> 10} KiB of shared memory: {error.strerror}") from error

    @property
    def size(self) -> int:
        """Size in bytes, at least the requested size."""
        return self._memory.size

    def array(self, dtype: np.dtype[Any] | str, count: int, offset: int = 0) -> Array:
        """View of `count` items at byte `offset`; invalid after close()."""
        assert self._memory.buf is not None
        return np.frombuffer(self._memory.buf, dtype, count, offset)

    def close(self) -> None:
        """Unmap, and remove the segment if this process owns it."""
        if self.owner:
            self._memory.unlink()
            os.close(self._lock)
        with contextlib.suppress(BufferError):  # a view still exists: the mapping lives until the view is gone
            self._memory.close()


def store_release(cell: Array, value: int) -> None:
    """Store into u64[1] after all earlier stores.

    On x86-64 an aligned 8-byte store is one instruction, and other cores see stores in program order. Other
    architectures need a fence here and in `load_acquire`; until then `require_total_store_order` refuses them.
    """
    cell[0] = value


def load_acquire(cell: Array) -> int:
    """Load u64[1] before all later loads."""
    return int(cell[0])


class Journal:
    """State that changes atomically, even if its writer dies at any moment.

        generation (u64) | slot 0 | slot 1
                           ^ the slot `generation & 1` is the committed one

    There is one writer. It fills the other slot, then stores `generation`. Any process may call `committed()`. If the
    generation changes during the read, the reader repeats it, because the writer may already be filling the slot that
    was read.
    """

    HEADER_BYTES = 64

    def __init__(self, segment: Segment, dtype: np.dtype[Any], offset: int) -> None:
        self._generation = segment.array("<u8", 1, offset)
        self._slots = segment.array(dtype, 2, offset + self.HEADER_BYTES)
        self.next = self.committed()

    @classmethod
    def bytes_for(cls, dtype: np.dtype[Any]) -> int:
        """Size in bytes of a journal of this dtype, rounded up to cache lines."""
        return (cls.HEADER_BYTES + 2 * dtype.itemsize + 63) // 64 * 64

    @property
    def generation(self) -> int:
        """Number of commits."""
        return load_acquire(self._generation)

    def committed(self) -> Array:
        """Copy of the committed state, as an array of one item."""
        while True:
            before = load_acquire(self._generation)
            at = before & 1
            state = self._slots[at : at + 1].copy()
            if load_acquire(self._generation) == before:
                return state

    def peek(self, field: str) -> Array:
        """View of one field of the committed state. Use it only for flags that never change back."""
        column: Array = self._slots[field][load_acquire(self._generation) & 1]
        return column

    def commit(self) -> None:
        """Make `next` the committed state. Costs about 1 µs and a copy of the state."""
        generation = load_acquire(self._generation) + 1
        at = generation & 1
        self._slots[at : at + 1] = self.next
        store_release(self._generation, generation)

    def close(self) -> None:
        """Drop the views."""
        del self._generation, self._slots


class TableReader:
    """The reading side of a journal that holds a table: `count`, and that many rows in `field`."""

    field = ""
    seen = 0
    """The generation that changed() returned last. With 0, a table that was never committed counts as unchanged."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def changed(self) -> Array | None:
        """All rows if the table was committed since the last call, else None."""
        generation = self._journal.generation
        if generation == self.seen:
            return None
        self.seen = generation
        state = self._journal.committed()[0]
        found: Array = state[self.field][: int(state["count"])]
        return found
