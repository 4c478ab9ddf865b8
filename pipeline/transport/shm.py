"""Shared-memory segments and what stands in them: typed arrays and a two-slot journal.

A segment has one owner, the supervisor, which creates and unlinks it; every other process attaches.
All numpy views are made by `np.frombuffer`, so that closing a segment that is still in use raises
instead of leaving a dangling view.

Ordering. Plain Python has no fence. x86-64 keeps stores in program order and loads in program order,
and an aligned 8-byte numpy store is one `mov`: payload before cursor is what a reader sees. Other
machines reorder; `require_total_store_order()` refuses to start there.
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
    """This machine may reorder stores, and plain Python cannot fence them."""


def require_total_store_order() -> None:
    """Raise UnorderedMemory unless plain stores are seen in order by other cores."""
    if platform.machine() != "x86_64":
        raise UnorderedMemory(f"the rings need x86-64's store order; {platform.machine()} would need a fence")


class NoSharedMemory(Exception):
    """A segment cannot be made, or there is no room for all of them."""


FOLDER = Path("/dev/shm")
NAME = re.compile(r"headrace-(\d+)-(\d+)-[0-9a-f]+")
"""headrace-PID-START-RANDOM: START is that of /proc/PID/stat, in clock ticks since boot."""


def stat_fields(pid: int) -> list[str]:
    """What /proc/PID/stat says behind the program's name, its state first; [] if there is no such process."""
    with contextlib.suppress(OSError):
        # the name stands in parentheses, and may have some itself
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return []


def start_of(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 if there is none of that id."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def remove_orphans() -> list[str]:
    """Remove segments whose owner has been killed together with all that would have removed them; their names.

    Owners of another PID namespace cannot be looked up, so each holds a lock on its segments.
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
    """NoSharedMemory unless that many bytes are free: who fills a tmpfs otherwise finds out by SIGBUS."""
    found = os.statvfs(FOLDER)
    free, need = found.f_bavail * found.f_frsize, sum(sizes)
    if free < need:
        raise NoSharedMemory(
            f"{FOLDER} has {free >> 20} MiB free, and this run needs {-(-need >> 20)} MiB: make it larger"
            " (in a container: --shm-size), or set ring_bytes, result_bytes or workers lower"
        )


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """A limit on the size of files is about outputs: it does not hold for segments where that can be had."""
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
    """A mapping that is unmapped with its last view, not by a finalizer that finds views alive."""

    def __del__(self) -> None:
        return


ATTACHED: dict[str, _Mapping] = {}
"""Mapped before this process lost the right to open them."""


def attach(names: Iterable[str]) -> None:
    """Map segments that are attached to later, by name."""
    for name in names:
        ATTACHED[name] = _Mapping(name=name)


def contents(name: str, size: int) -> bytes:
    """The bytes of a segment that is only read."""
    with open(FOLDER / name, "rb") as file:
        return file.read(size)


class Segment:
    """One shared-memory segment. `close()` after all views are gone; `unlink()` by the owner."""

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
        """Bytes, at least what was asked for."""
        return self._memory.size

    def array(self, dtype: np.dtype[Any] | str, count: int, offset: int = 0) -> Array:
        """View of `count` items at `offset`; dead after close()."""
        assert self._memory.buf is not None
        return np.frombuffer(self._memory.buf, dtype, count, offset)

    def close(self) -> None:
        """Unmap, and remove the segment if this process owns it."""
        if self.owner:
            self._memory.unlink()
            os.close(self._lock)
        with contextlib.suppress(BufferError):  # a view is alive: the mapping goes with it
            self._memory.close()


def store_release(cell: Array, value: int) -> None:
    """Store into u64[1] after all stores before it.

    On x86-64 an aligned store of 8 bytes is one instruction, and stores are seen in the order of the program. Another
    architecture needs its fence here and in `load_acquire`: `require_total_store_order` refuses it until then.
    """
    cell[0] = value


def load_acquire(cell: Array) -> int:
    """Load u64[1] before all loads behind it."""
    return int(cell[0])


class Journal:
    """State that changes as a whole or not at all, whatever moment its writer dies at.

        generation (u64) | slot 0 | slot 1
                           ^ the slot `generation & 1` is the committed one

    One writer: it fills the other slot, then stores `generation`. `committed()` may be called by
    anyone; a reader that sees the generation move meanwhile reads again, since from then on the writer
    may be filling the slot that was read.
    """

    HEADER_BYTES = 64

    def __init__(self, segment: Segment, dtype: np.dtype[Any], offset: int) -> None:
        self._generation = segment.array("<u8", 1, offset)
        self._slots = segment.array(dtype, 2, offset + self.HEADER_BYTES)
        self.next = self.committed()

    @classmethod
    def bytes_for(cls, dtype: np.dtype[Any]) -> int:
        """Space that a journal of this dtype takes, rounded up to cache lines."""
        return (cls.HEADER_BYTES + 2 * dtype.itemsize + 63) // 64 * 64

    @property
    def generation(self) -> int:
        """How often it was committed."""
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
        """One field of the committed state, a view: for flags that only ever go one way."""
        column: Array = self._slots[field][load_acquire(self._generation) & 1]
        return column

    def commit(self) -> None:
        """Make `next` the committed state. About 1 µs and a copy of the state."""
        generation = load_acquire(self._generation) + 1
        at = generation & 1
        self._slots[at : at + 1] = self.next
        store_release(self._generation, generation)

    def close(self) -> None:
        """Drop the views."""
        del self._generation, self._slots


class TableReader:
    """What others see of a journal that has a table: `count`, and as many rows of `field`."""

    field = ""
    seen = 0
    """The generation that is known; before the first there is nothing to tell."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def changed(self) -> Array | None:
        """All rows, if they are not what they were when it was last asked."""
        generation = self._journal.generation
        if generation == self.seen:
            return None
        self.seen = generation
        state = self._journal.committed()[0]
        found: Array = state[self.field][: int(state["count"])]
        return found
