"""What a process of the pipeline is given: descriptors, and doorbells to wake another process with."""

from __future__ import annotations

import contextlib
import os
import select
from multiprocessing import reduction
from typing import Any


class InheritedFd:
    """A descriptor that goes along when it is an argument of a process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), reduction.DupFd(self.fd))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def _rebuild(kind: Any, duplicate: Any) -> Any:
    return kind(duplicate.detach())


class Doorbell(InheritedFd):
    """An eventfd. A ring before wait() is not lost; many rings may wake once."""

    def __init__(self, fd: int | None = None) -> None:
        super().__init__(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if fd is None else fd)
        self._poll: select.poll | None = None

    def ring(self) -> None:
        """Wake the waiter, now or when it next waits."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.fd, 1)

    def wait(self, timeout_ms: float) -> bool:
        """Wait for a ring; False if none came in time."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.fd, select.POLLIN)
        if not self._poll.poll(timeout_ms):
            return False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        return True
