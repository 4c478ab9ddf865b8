"""How far an output has got, at any moment that its writer may be killed at. A table in the control segment.

    PROGRESS   written u64 | begun u64 | filtered u64 | bytes u64 | at u64 | size u64 | inode u64

The publisher's journal says what was written when it was committed. What was written after that stands here, for a
run that is given up: rows that are in the output for certain, and those that a write may have added that was begun
and of which nobody has seen the end. A row has one writer (the sink, the recorder), which stores in this order:

    at, size, inode | begun = written + rows | the write itself | written | begun = written

x86-64 keeps stores in order, and what a process stored before it was killed is there. Of a regular file the
supervisor finds out by looking what came of the last write, if nobody else writes to it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from headrace.pipeline.transport.shm import Array

PROGRESS = np.dtype([(name, "<u8") for name in ("written", "begun", "filtered", "bytes", "at", "size", "inode")])
"""Rows, all bytes; of the write that was begun: where in a file it began, its bytes (0: no file), which file."""
PIECE = 1 << 20


class Progress:
    """The writer's end. `row`: PROGRESS[1]; without one, nobody looks."""

    def __init__(self, row: Array | None = None) -> None:
        self._row = np.zeros(1, PROGRESS) if row is None else row
        self._bound, self.is_of_file = 0, False

    def begin(self, bound: int, fd: int = -1, size: int = 0) -> None:
        """A write is about to begin, after which `bound` rows are there at most: `size` bytes to a file `fd`."""
        row, found = self._row, os.fstat(fd) if fd >= 0 else None
        self.is_of_file = found is not None and stat.S_ISREG(found.st_mode)
        row["at"], row["inode"], row["size"] = (
            (found.st_size, found.st_ino, size) if found and self.is_of_file else (0, 0, 0)
        )
        self._bound = bound
        row["begun"] = bound

    def add(self, written: int) -> None:
        """So many rows are there, and the write goes on."""
        self._row["written"] = written

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The write waits for room: nothing goes out meanwhile."""
        self._row["begun"] = self._row["written"]
        yield
        self._row["begun"] = self._bound

    def end(self, written: int, filtered: int = 0, size: int = 0) -> None:
        """So many rows are there, `size` bytes in all, and no write is under way."""
        row = self._row
        row["written"], row["filtered"], row["bytes"] = written, filtered, size
        row["begun"] = written

    def restart(self, fd: int) -> None:
        """After a predecessor's death: what it was in the middle of writing to a file is taken back, since it will be
        offered again.
        """
        if self._is_partial(fd):
            with contextlib.suppress(OSError):
                os.ftruncate(fd, int(self._row["at"][0]))

    def _is_partial(self, fd: int) -> bool:
        row: Any = self._row[0]
        return bool(row["begun"] > row["written"]) and 0 < _bytes_there(row, fd) < row["size"]


class Settled(NamedTuple):
    """Of an output whose writer has ended: rows that are there, and `uncertain` ones that may be as well."""

    written: int
    uncertain: int
    filtered: int
    bytes: int


def settled(row: Any, fd: int, lines: bool) -> Settled:
    """What there is in the end. `row`: of PROGRESS; `fd`: where it wrote, -1 if that is unknown; part of a line at the
    end of a file is taken away. `lines`: whether a row is a line.
    """
    written, begun, filtered, total = (int(row[name]) for name in ("written", "begun", "filtered", "bytes"))
    size, there = int(row["size"]), _bytes_there(row, fd)
    if begun <= written:
        return Settled(written, 0, filtered, total)
    if there == size > 0:
        return Settled(begun, 0, filtered, total + size)
    if 0 <= there < size:
        with contextlib.suppress(OSError):
            rows, whole = _end_whole(fd, int(row["at"]), lines)
            return Settled(written + rows, 0, filtered, total + whole)
    return Settled(written, begun - written, filtered, total)


def _bytes_there(row: Any, fd: int) -> int:
    """How many bytes a file has behind the place at which the last write began; -1 if that cannot be said."""
    if fd < 0 or not row["size"]:
        return -1
    found = os.fstat(fd)
    return found.st_size - int(row["at"]) if found.st_ino == row["inode"] else -1


def _end_whole(fd: int, at: int, lines: bool) -> tuple[int, int]:
    """Cut a file behind its last whole line, or where the write began; lines and bytes that are there from `at`."""
    count, whole = 0, at
    if lines:
        with open(f"/proc/self/fd/{fd}", "rb", buffering=0) as file:
            begin = at
            while piece := os.pread(file.fileno(), PIECE, begin):
                if piece.count(b"\n"):
                    count, whole = count + piece.count(b"\n"), begin + piece.rindex(b"\n") + 1
                begin += len(piece)
    os.ftruncate(fd, whole)
    return count, whole - at
