"""Clocks. Records carry the host's CLOCK_BOOTTIME; outputs carry time since the epoch.

In a time namespace, a process sees a different CLOCK_BOOTTIME than the BPF programs do. Every pipeline process
subtracts the offset of its namespace.
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
    """The time of events cannot be determined on this host or in this namespace."""


def namespace_ns(process: Path = NAMESPACE) -> int:
    """Offset in ns that the time namespace of this process adds to CLOCK_BOOTTIME.

    Raises ClockError if the offset cannot be determined.
    """
    try:
        text = (process / "timens_offsets").read_text()
    except FileNotFoundError:
        return 0  # this kernel has no time namespaces
    except OSError as error:
        raise ClockError(f"{process}/timens_offsets: {error.strerror}") from error
    # timens_offsets describes the namespace of the children, not of this process
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
        return 0  # pipeline/host/features.py refuses the run


_NAMESPACE_NS = _namespace_or_none_ns()


def boottime_ns() -> int:
    """The host's CLOCK_BOOTTIME in ns, as returned by bpf_ktime_get_boot_ns()."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - _NAMESPACE_NS


def sample_offset() -> tuple[int, int]:
    """(CLOCK_REALTIME minus CLOCK_BOOTTIME, maximum error), both in ns; the best of _TRIES readings."""
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
    """CLOCK_REALTIME minus CLOCK_BOOTTIME in ns, accurate to about a microsecond."""
    return sample_offset()[0]


class _Timer(ctypes.Structure):
    """struct itimerspec"""

    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns"))


class StepAlarm(InheritedFd):
    """A timerfd that never expires. It becomes readable when the wall clock is set (TFD_TIMER_CANCEL_ON_SET)."""

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
        """Whether the clock was set since the last call."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
        return True


class CpuClock:
    """CPU time of a stage across restarts. `before_ns` is the CPU time from the journal."""

    def __init__(self, before_ns: int) -> None:
        self._before_ns = before_ns

    def now_ns(self) -> int:
        """CPU time of this process and its predecessors."""
        return self._before_ns + time.process_time_ns()
