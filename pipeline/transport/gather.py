"""Where the bytes of a batch lie: addresses and lengths in an array that writev(2) takes as it is.

Lines of several workers alternate every few lines, so that a Python object for each run of them would cost
more than merging does.
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
"""struct iovec of a 64-bit machine."""
IOV_MAX = 1024
Wait = Callable[[int], object]
_writev = ctypes.CDLL(None, use_errno=True).writev
_writev.restype = ctypes.c_ssize_t
_writev.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class Gather:
    """Pieces of memory in order, none of them empty. It keeps the buffers mapped that they lie in."""

    def __init__(self, vectors: Array, buffers: Sequence[Array]) -> None:
        """`vectors`: IOVEC[n]; `buffers`: whatever they point into."""
        self.vectors, self._buffers = vectors, tuple(buffers)

    @classmethod
    def of(cls, *pieces: Array) -> Gather:
        """Each a u8 array, whole."""
        present = [piece for piece in pieces if piece.size]
        return cls(np.array([(address(piece), piece.size) for piece in present], IOVEC), present)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def size(self) -> int:
        """Bytes, all together."""
        return int(self.vectors["bytes"].sum())

    def joined(self) -> memoryview:
        """All bytes in one: a view if they are one piece, or else of a copy."""
        views = [memoryview((ctypes.c_char * n).from_address(at)).cast("B") for at, n in self.vectors.tolist()]
        return views[0] if len(views) == 1 else memoryview(b"".join(views))

    def write(self, fd: int, wait: Wait | None = None) -> Iterator[int]:
        """Write everything, and yield the bytes of each portion that the descriptor took. OSError as write(2). `wait`:
        called when a descriptor that does not block has no room.
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
    """Of its first byte."""
    return int(array.__array_interface__["data"][0])


def wait_room(fd: int, most_ms: int | None = None) -> bool:
    """Until a descriptor takes some; False if it does not in that time."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(most_ms))


def _write_some(fd: int, vectors: Array, wait: Wait) -> int:
    """One writev(2), begun again when a signal interrupts it, and when a descriptor that does not block has room: who
    shares it, such as the traced command, may have made it so.
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
