"""Clocks. Records carry CLOCK_BOOTTIME of the host; outputs carry the epoch.

A process in a time namespace sees another CLOCK_BOOTTIME than the kernel's programs: what its namespace adds is taken
off again, in every process of the pipeline alike.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from pathlib import Path

from headrace.pipeline.transport.doorbell import InheritedFd

NAMESPACE = Path("/proc/self")
CLOCK_REALTIME, ABSOLUTE_AND_CANCELLED = 0, 3
"""TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET"""
NEVER_S = 1 << 40
_TRIES = 5


class ClockError(Exception):
    """The time of events could not be told on this host, or not here."""


def namespace_ns(process: Path = NAMESPACE) -> int:
    """What the time namespace of this process adds to CLOCK_BOOTTIME; ClockError if that cannot be known."""
    try:
        text = (process / "timens_offsets").read_text()
    except FileNotFoundError:
        return 0  # a kernel without them
    except OSError as error:
        raise ClockError(f"{process}/timens_offsets: {error.strerror}") from error
    # the file is about the namespace of children
    mine, theirs = (os.readlink(process / "ns" / name) for name in ("time", "time_for_children"))
    if mine != theirs:
        raise ClockError("this process is in another one than those that it starts, so that their clocks differ")
    for line in text.splitlines():
        name, seconds, ns = line.split()
        if name in ("boottime", "7"):
            return int(seconds) * 10**9 + int(ns)
    raise ClockError(f"{process}/timens_offsets says nothing of CLOCK_BOOTTIME")


def _namespace_or_none_ns() -> int:
    try:
        return namespace_ns()
    except ClockError:
        return 0  # the run is refused (pipeline/host/features.py)


_NAMESPACE_NS = _namespace_or_none_ns()


def boottime_ns() -> int:
    """CLOCK_BOOTTIME, as bpf_ktime_get_boot_ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - _NAMESPACE_NS


def sample_offset() -> tuple[int, int]:
    """(CLOCK_REALTIME minus CLOCK_BOOTTIME, how far it may be off), the best of a few readings."""
    best: tuple[int, int] | None = None
    for _ in range(_TRIES):
        before = boottime_ns()
        real = time.time_ns()
        after = boottime_ns()
        if best is None or after - before < best[1]:
            best = (real - (before + after) // 2, after - before)
    assert best is not None
    return best


def boot_epoch_ns() -> int:
    """CLOCK_REALTIME minus CLOCK_BOOTTIME, within a microsecond."""
    return sample_offset()[0]


class _Timer(ctypes.Structure):
    """struct itimerspec"""

    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns"))


class StepAlarm(InheritedFd):
    """A timer that is never due, and readable once the wall clock was set (TFD_TIMER_CANCEL_ON_SET)."""

    def __init__(self, fd: int = -1) -> None:
        if fd < 0:
            libc = ctypes.CDLL(None, use_errno=True)
            fd = libc.timerfd_create(CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
            timer = _Timer(0, 0, NEVER_S, 0)
            if fd < 0 or libc.timerfd_settime(fd, ABSOLUTE_AND_CANCELLED, ctypes.byref(timer), None):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), "timerfd")
        super().__init__(fd)

    def rang(self) -> bool:
        """Whether the clock was set since it was last asked."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
        return True


class CpuClock:
    """CPU time of a stage, over the deaths of its processes: `before` is what the journal has."""

    def __init__(self, before_ns: int) -> None:
        self._before_ns = before_ns

    def now_ns(self) -> int:
        """CPU time of this process and its predecessors."""
        return self._before_ns + time.process_time_ns()
