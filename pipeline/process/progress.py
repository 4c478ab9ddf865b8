"""Progress of each output, valid even if its writer is killed at any moment. A table in the control segment.

    PROGRESS   written u64 | begun u64 | filtered u64 | bytes u64 | at u64 | size u64 | inode u64

The publisher's journal holds the counts at its last commit. This table covers the time after that, for a run that is
aborted: rows that are certainly in the output, and rows of a write that began and may not have completed. A table row
has one writer (the sink or the recorder), which stores in this order:

    at, size, inode | begun = written + rows | the write itself | written | begun = written

x86-64 keeps stores in order, and all stores before a kill are visible. For a regular file, the supervisor determines
the outcome of the last write from the file itself, provided no other process writes to it.
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
"""`written`, `begun`, `filtered`: rows; `bytes`: total bytes. `at`, `size`, `inode` describe the write in progress: its
file offset, its length in bytes (0 if the output is not a regular file), and the file."""
PIECE = 1 << 20


class Progress:
    """The writer. `row` is PROGRESS[1]; without it, the progress is kept in private memory."""

    def __init__(self, row: Array | None = None) -> None:
        self._row = np.zeros(1, PROGRESS) if row is None else row
        self._bound, self.is_of_file = 0, False

    def begin(self, bound: int, fd: int = -1, size: int = 0) -> None:
        """Announce a write of `size` bytes to file `fd`, after which at most `bound` rows are in the output."""
        row, found = self._row, os.fstat(fd) if fd >= 0 else None
        self.is_of_file = found is not None and stat.S_ISREG(found.st_mode)
        row["at"], row["inode"], row["size"] = (
            (found.st_size, found.st_ino, size) if found and self.is_of_file else (0, 0, 0)
        )
        self._bound = bound
        row["begun"] = bound

    def add(self, written: int) -> None:
        """Set the number of rows in the output while the write continues."""
        self._row["written"] = written

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Mark the write as paused while it waits for room: no bytes are written meanwhile."""
        self._row["begun"] = self._row["written"]
        yield
        self._row["begun"] = self._bound

    def end(self, written: int, filtered: int = 0, size: int = 0) -> None:
        """End a write: `written` rows and `size` total bytes are in the output, and no write is in progress."""
        row = self._row
        row["written"], row["filtered"], row["bytes"] = written, filtered, size
        row["begun"] = written

    def restart(self, fd: int) -> None:
        """After a predecessor died: truncate a partial write to a regular file. Its rows will be offered again."""
        if self._is_partial(fd):
            with contextlib.suppress(OSError):
                os.ftruncate(fd, int(self._row["at"][0]))

    def _is_partial(self, fd: int) -> bool:
        row: Any = self._row[0]
        return bool(row["begun"] > row["written"]) and 0 < _bytes_there(row, fd) < row["size"]


class Settled(NamedTuple):
    """Final counts of an output whose writer has ended. `uncertain` rows may be in it in addition to `written`."""

    written: int
    uncertain: int
    filtered: int
    bytes: int


def settled(row: Any, fd: int, lines: bool) -> Settled:
    """Determine the final counts of an output. Removes a partial line (or write) at the end of a regular file.

    `row` is a row of PROGRESS. `fd` is the output's descriptor, -1 if unknown. `lines` says whether each row is a line.
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
    """Number of bytes in the file after the offset at which the last write began; -1 if unknown."""
    if fd < 0 or not row["size"]:
        return -1
    found = os.fstat(fd)
    return found.st_size - int(row["at"]) if found.st_ino == row["inode"] else -1


def _end_whole(fd: int, at: int, lines: bool) -> tuple[int, int]:
    """Truncate a file after its last whole line, or at `at` if there is none. Returns (lines, bytes) after `at`."""
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
