"""What workers ask of the collector, and the counters of both.

    worker --ArtifactRequest--> pipe --> collector --> files and index
                 `------------ counters in a segment ------------'

A worker never waits: if the pipe is full, the request is counted as `dropped`.

    segment:  COUNTS[1] of the collector | dropped u64[workers]
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from headrace.config.capture import KINDS
from headrace.pipeline.containers.hashes import Key
from headrace.pipeline.transport.doorbell import InheritedFd, received
from headrace.pipeline.transport.shm import Array, Segment

REASONS = ("gone", "changed", "too_large", "no_room", "not_read", "file_system", "too_slow", "overrun")
"""Why an artifact was not kept. overrun: the collector had too many requests."""
OUTCOMES = ("stored", "known", "unwanted", "untouched", *REASONS)
"""What became of a request. known: this content is stored already; unwanted: a filter excludes it; untouched: a file
that was opened for writing was not written."""
COUNTS = np.dtype([(name, "<u8") for name in ("requested", "versions", *OUTCOMES, "bytes", "cpu_ns")])
REQUEST = struct.Struct("<BIQQQQQqH")
"""kind, pid, start of the process, device, inode, ctime or address, time, descriptor or length, bytes of the path"""
MAX_PATH_BYTES = select.PIPE_BUF - REQUEST.size


class ArtifactRequest(NamedTuple):
    """A request to keep one artifact.

    `place`: the ctime in ns of an executable or module, the address of a region; `extent`: the descriptor of a BPF
    program or module, the bytes of a region. `time_ns`: CLOCK_REALTIME of the event; `start_ns`: CLOCK_BOOTTIME at
    which the process began.
    """

    kind: str
    pid: int
    start_ns: int = 0
    device: int = 0
    inode: int = 0
    place: int = 0
    time_ns: int = 0
    extent: int = -1
    path: bytes = b""

    @property
    def key(self) -> Key:
        """Identity of an executable or a module."""
        return Key(self.device, self.inode, self.place)

    def packed(self) -> bytes:
        """Encoded for the pipe. Truncates the path to MAX_PATH_BYTES."""
        path = self.path[:MAX_PATH_BYTES]
        numbers = (self.start_ns, self.device, self.inode, self.place, self.time_ns, self.extent)
        return REQUEST.pack(KINDS.index(self.kind), self.pid, *numbers, len(path)) + path


def requests(fd: int) -> Iterator[ArtifactRequest]:
    """Yield all requests in the pipe."""
    for (kind, pid, start_ns, device, inode, place, time_ns, extent), path in received(fd, REQUEST):
        yield ArtifactRequest(KINDS[kind], pid, start_ns, device, inode, place, time_ns, extent, path)


class ArtifactCounters:
    """The counters in their segment."""

    def __init__(self, segment: Segment, workers: int) -> None:
        self.of_collector: Array = segment.array(COUNTS, 1)
        self.dropped: Array = segment.array(np.dtype("<u8"), workers, COUNTS.itemsize)

    @staticmethod
    def size(workers: int) -> int:
        """Size of the segment in bytes."""
        return COUNTS.itemsize + 8 * workers

    def add(self, name: str, number: int = 1) -> None:
        """Count something. Only the collector calls this."""
        self.of_collector[name] += np.uint64(number)

    def shown(self) -> dict[str, int]:
        """Counters of the run by name. `waiting`: requests without an outcome."""
        found = {name: int(self.of_collector[name][0]) for name in COUNTS.names or () if name != "cpu_ns"}
        found["waiting"] = found["requested"] + found["versions"] - sum(found[name] for name in OUTCOMES)
        found["dropped"] = int(self.dropped.sum())
        return found


class CaptureClient:
    """A worker's access to the pipe."""

    def __init__(self, pipe: InheritedFd, counters: ArtifactCounters, worker: int) -> None:
        self._fd, self._dropped, self._worker = pipe.fd, counters.dropped, worker

    def ask(self, request: ArtifactRequest) -> None:
        """Send a request, or count it as dropped."""
        try:
            os.write(self._fd, request.packed())
        except (BlockingIOError, BrokenPipeError):
            self._dropped[self._worker] += np.uint64(1)
