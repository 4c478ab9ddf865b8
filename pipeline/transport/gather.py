"""Gather lists: addresses and lengths of the pieces of a batch, in an array that writev(2) accepts directly.

Lines of different workers alternate every few lines. A Python object per piece would cost more than the merge itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from headrace.pipeline.transport.shm import Array

IOVEC = np.dtype([("base", "<u8"), ("bytes", "<u8")])
"""struct iovec on a 64-bit machine."""
IOV_MAX = 1024
Wait = Callable[[int], object]
_writev = ctypes.CDLL(None, use_errno=True).writev
_writev.restype = ctypes.c_ssize_t
_writev.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class Gather:
    """An ordered list of non-empty pieces of memory. It keeps references to the buffers that contain them."""

    def __init__(self, vectors: Array, buffers: Sequence[Array]) -> None:
        """`vectors` is IOVEC[n]; `buffers` are the arrays that they point into."""
        self.vectors, self._buffers = vectors, tuple(buffers)

    @classmethod
    def of(cls, *pieces: Array) -> Gather:
        """A gather list of whole u8 arrays. Skips empty ones."""
        present = [piece for piece in pieces if piece.size]
        return cls(np.array([(address(piece), piece.size) for piece in present], IOVEC), present)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def size(self) -> int:
        """Total bytes."""
        return int(self.vectors["bytes"].sum())

    def joined(self) -> memoryview:
        """All bytes as one memoryview: a view of the memory if there is one piece, else of a copy."""
        views = [memoryview((ctypes.c_char * n).from_address(at)).cast("B") for at, n in self.vectors.tolist()]
        return views[0] if len(views) == 1 else memoryview(b"".join(views))

    def write(self, fd: int, wait: Wait | None = None) -> Iterator[int]:
        """Write everything; yield the number of bytes that each writev(2) accepted. Raises OSError like write(2).

        `wait` is called when a non-blocking descriptor has no room; the default is wait_room.
        """
        rest = self.vectors.copy()
        while len(rest):
            sent = _write_some(fd, rest, wait or wait_room)
            yield sent
            ends = np.cumsum(rest["bytes"][:IOV_MAX])
            whole = int(np.searchsorted(ends, sent, "right"))
            left = sent - int(ends[whole - 1]) if whole else sent
            rest = rest[whole:]
            if left:
                rest["base"][0] += left
                rest["bytes"][0] -= left


def address(array: Array) -> int:
    """Address of the first byte of an array."""
    return int(array.__array_interface__["data"][0])


def wait_room(fd: int, most_ms: int | None = None) -> bool:
    """Wait until a descriptor is writable; return False on timeout. None waits forever."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(most_ms))


def _write_some(fd: int, vectors: Array, wait: Wait) -> int:
    """One writev(2), repeated after EINTR, and after EAGAIN once `wait` returns.

    The descriptor may be non-blocking because another process that shares it, such as the traced command, made it so.
    """
    while True:
        sent = int(_writev(fd, address(vectors), min(len(vectors), IOV_MAX)))
        if sent >= 0:
            return sent
        code = ctypes.get_errno()
        if code == errno.EAGAIN:
            wait(fd)
        elif code != errno.EINTR:
            raise OSError(code, os.strerror(code))
