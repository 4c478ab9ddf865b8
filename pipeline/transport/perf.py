"""Perf rings: one per CPU and stream, opened by the supervisor, drained by the reader.

Layout of a mapping (include/uapi/linux/perf_event.h, `struct perf_event_mmap_page`): one control page whose words 128
and 129 are data_head and data_tail, followed by a power of two of data pages. The kernel stores data_head after the
records; the reader stores data_tail after it has copied them. A record begins with {u32 type, u16 misc, u16 size}. In a
sample, {u32 raw size, raw bytes} follows.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from headrace.bpf.syscall import PERF_IOC_ENABLE, perf_event_open

PAGE = mmap.PAGESIZE
PERF_TYPE_SOFTWARE, PERF_COUNT_SW_BPF_OUTPUT = 1, 10
PERF_SAMPLE_RAW = 1 << 10
ATTR_WATERMARK = 1 << 14
RECORD_LOST, RECORD_SAMPLE = 2, 9
HEADER = struct.Struct("<IHH")
LOST = struct.Struct("<QQ")
HEAD_WORD, TAIL_WORD = 128, 129
Array = np.ndarray[Any, Any]


class _Attr(ctypes.Structure):
    """struct perf_event_attr, version 6 (120 bytes)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_watermark", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("rest", ctypes.c_uint64 * 8),
    )


def open_output(cpu: int, wakeup_bytes: int) -> int:
    """Descriptor of a perf event that BPF programs on `cpu` can submit to. Needs CAP_PERFMON; OSError on failure."""
    attr = _Attr(
        type=PERF_TYPE_SOFTWARE,
        size=ctypes.sizeof(_Attr),
        config=PERF_COUNT_SW_BPF_OUTPUT,
        sample_period=1,
        sample_type=PERF_SAMPLE_RAW,
        flags=ATTR_WATERMARK,
        wakeup_watermark=wakeup_bytes,
    )
    return perf_event_open(bytes(attr), cpu)


def enable(fd: int) -> None:
    """Enable the event. Map it first: without a mapping its output is discarded."""
    fcntl.ioctl(fd, PERF_IOC_ENABLE, 0)


class Sample(NamedTuple):
    """One sample: the ring position of its frame (which starts at the raw size), and its length in bytes."""

    position: int
    bytes: int


class PerfRing:
    """One mapped perf ring. copy() copies samples out; data_tail moves only in release()."""

    def __init__(self, fd: int, pages: int) -> None:
        self.size = pages * PAGE
        self._map = mmap.mmap(fd, PAGE + self.size)
        self._words = np.frombuffer(self._map, "<u8", PAGE // 8)
        self._data = np.frombuffer(self._map, "u1", self.size, PAGE)
        self._view = memoryview(self._map)[PAGE:]
        self.lost = 0

    @property
    def head(self) -> int:
        """data_head: total bytes written by the kernel."""
        return int(self._words[HEAD_WORD])

    @property
    def tail(self) -> int:
        """data_tail: total bytes released."""
        return int(self._words[TAIL_WORD])

    def samples(self, start: int, head: int) -> Iterator[Sample]:
        """Samples in [start, head). Adds the counts of PERF_RECORD_LOST to `lost`; skips other record types.

        Raises ValueError at a record of size 0.
        """
        at, mask, view = start, self.size - 1, self._view
        while at < head:
            # records are 8-byte aligned, so a header never wraps
            kind, _, size = HEADER.unpack_from(view, at & mask)
            if size == 0:
                raise ValueError(f"perf record of size 0 at {at}")
            if kind == RECORD_SAMPLE:
                yield Sample(at + HEADER.size, size - HEADER.size)
            elif kind == RECORD_LOST:
                self.lost += LOST.unpack(self._wrapped(at + HEADER.size, LOST.size))[1]
            at += size

    def _wrapped(self, position: int, count: int) -> bytes:
        at = position & (self.size - 1)
        first = min(count, self.size - at)
        return bytes(self._view[at : at + first]) + bytes(self._view[: count - first])

    def header(self, sample: Sample, count: int) -> bytes:
        """The first `count` bytes of a sample's frame."""
        return self._wrapped(sample.position, count)

    def copy(self, sample: Sample, into: Array) -> None:
        """Copy a sample's bytes. `into` must have exactly the sample's length."""
        at = sample.position & (self.size - 1)
        first = self.size - at
        if sample.bytes <= first:
            into[:] = self._data[at : at + sample.bytes]
        else:
            into[:first] = self._data[at:]
            into[first:] = self._data[: sample.bytes - first]

    def release(self, position: int) -> None:
        """Return everything before `position` to the kernel. Call it after the copies (x86-64 keeps the order)."""
        self._words[TAIL_WORD] = position

    def close(self) -> None:
        """Unmap. Closing the last mapping discards the contents of the ring."""
        self._view.release()
        del self._words, self._data
        self._map.close()
