"""File descriptors passed to pipeline processes, and eventfd doorbells that wake another process."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import time
from collections.abc import Hashable, Iterator
from multiprocessing import reduction
from typing import Any

AGAIN_S = 1.0


class InheritedFd:
    """A file descriptor that is duplicated into a process when passed as an argument to it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), reduction.DupFd(self.fd))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def _rebuild(kind: Any, duplicate: Any) -> Any:
    return kind(duplicate.detach())


class Questions:
    """Sends requests through a non-blocking pipe.

    A request can get lost because the pipe is full or the receiver dies. Each key may therefore be requested again
    after AGAIN_S seconds. At most `most` keys are remembered.
    """

    def __init__(self, pipe: InheritedFd, most: int) -> None:
        self._fd, self._most = pipe.fd, most
        self._asked: dict[Hashable, float] = {}

    def ask(self, key: Hashable, data: bytes) -> None:
        """Write the request `data` (at most PIPE_BUF bytes) unless `key` was requested within the last AGAIN_S."""
        now = time.monotonic()
        if now - self._asked.get(key, -AGAIN_S) < AGAIN_S:
            return
        if len(self._asked) >= self._most:
            self._asked.clear()
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._fd, data)
            self._asked[key] = now


def received(fd: int, head: struct.Struct) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yield (fields, text) of each request in a non-blocking pipe. The last field of `head` is the length of the text.

    Senders write a request at once, and at most PIPE_BUF bytes: a pipe never holds a part of one.
    """
    while True:
        try:
            data = os.read(fd, head.size)
        except BlockingIOError:
            return
        if len(data) < head.size:
            return
        *fields, length = head.unpack(data)
        yield tuple(fields), os.read(fd, length) if length else b""


class Doorbell(InheritedFd):
    """An eventfd. A ring() before wait() is not lost; several rings may cause one wakeup."""

    def __init__(self, fd: int | None = None) -> None:
        super().__init__(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if fd is None else fd)
        self._poll: select.poll | None = None

    def ring(self) -> None:
        """Wake the waiter now, or at its next wait()."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.fd, 1)

    def wait(self, timeout_ms: float) -> bool:
        """Wait for a ring; return False on timeout."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.fd, select.POLLIN)
        if not self._poll.poll(timeout_ms):
            return False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        return True
