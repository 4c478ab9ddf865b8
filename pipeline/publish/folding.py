"""Findings once the workers are merged: repeats are folded, and what is left goes to the sinks.

A finding leaves at once if none like it has left in the window before; those that follow within the window, which
begins with the first, are counted. When the window is over, or at the bound of windows, or at the end, one more line
says how many there were: the first's, with `count`, `first`, `last` and some process ids. Windows are measured in the
time of events; `expire` closes those that no event comes to close.

What a signature finds only by its threshold (config/thresholds.py) is counted here, too: the match that completes it
is a finding, and those before it are `below`. A line that says how many were folded is no finding.

    found = published + folded + below
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from headrace.config.thresholds import Thresholds
from headrace.pipeline.publish.merge import Part, order
from headrace.pipeline.transport.shm import Array

MAX_WINDOWS = 16384
MAX_BYTES = 64 << 20
"""Of first lines that are kept for their summaries."""
SAMPLE_PIDS = 16
RULE = re.compile(rb'"signatureID":"([^"]+)".*?"severity":"([a-z]+)"')
PID = re.compile(rb'"process":\{"pid":(\d+)')
SECOND_NS = 10**9


def topic(line: bytes) -> bytes:
    """`finding/SEVERITY/ID/` of a finding. What else a rule says of itself stands between the two, and has no quotes
    that are not escaped.
    """
    found = RULE.search(line)
    assert found
    return b"finding/%s/%s/" % (found[2], found[1])


@dataclass
class Stayed:
    """Findings of some record that do not leave: they repeat others, or are below a threshold."""

    folded: int = 0
    below: int = 0


@dataclass
class _Window:
    first_ns: int
    last_ns: int
    line: bytes
    count: int = 0
    pids: list[int] = field(default_factory=list)


class Folder:
    """Folds findings. `window_s` 0: nothing is folded."""

    def __init__(self, window_s: int) -> None:
        self._window_ns = window_s * SECOND_NS
        self._thresholds = Thresholds()
        self._windows: dict[int, _Window] = {}
        self._bytes = 0

    @property
    def folds(self) -> bool:
        """Whether lines are looked at one by one."""
        return self._window_ns > 0

    def take(self, parts: list[Part], stayed: list[Stayed]) -> Iterator[bytes]:
        """Lines that leave now, in the order of time. `stayed`, of each part: how many do not, added to."""
        for part, time_ns, fold, data in self._reached(parts, stayed):
            if not self._window_ns:
                yield data
                continue
            yield from self.expire(time_ns)
            window = self._windows.get(fold)
            if window is None:
                yield from self._open(fold, _Window(time_ns, time_ns, data))
                continue
            stayed[part].folded += 1
            window.count, window.last_ns = window.count + 1, max(window.last_ns, time_ns)
            pid = PID.search(data)
            if pid and len(window.pids) < SAMPLE_PIDS and int(pid[1]) not in window.pids:
                window.pids.append(int(pid[1]))

    def _reached(self, parts: list[Part], stayed: list[Stayed]) -> Iterator[tuple[int, int, int, bytes]]:
        """(part, time, fold, line) of those that are findings."""
        for part, time_ns, mark, data in lines(parts):
            if mark["count"]:
                group, count, within_ms = int(mark["group"]), int(mark["count"]), int(mark["within_ms"])
                reached = self._thresholds.take(time_ns, group, count, within_ms * 10**6)
                if reached is None:
                    stayed[part].below += 1
                    continue
                data = longer(data, threshold=reached.parts)
            yield part, time_ns, int(mark["fold"]), data

    def _open(self, fold: int, window: _Window) -> Iterator[bytes]:
        yield window.line
        pid = PID.search(window.line)
        window.pids = [int(pid[1])] if pid else []
        self._windows[fold] = window
        self._bytes += len(window.line)
        while len(self._windows) > MAX_WINDOWS or self._bytes > MAX_BYTES:
            yield from self._close(next(iter(self._windows)))

    def _close(self, fold: int) -> Iterator[bytes]:
        window = self._windows.pop(fold)
        self._bytes -= len(window.line)
        if window.count:
            yield summary(window.line, window.count, window.first_ns, window.last_ns, window.pids)

    def expire(self, now_ns: int) -> Iterator[bytes]:
        """Close windows that are over at that time (CLOCK_BOOTTIME)."""
        while self._windows:
            oldest = next(iter(self._windows))
            if now_ns < self._windows[oldest].first_ns + self._window_ns:
                return
            yield from self._close(oldest)

    def end(self) -> Iterator[bytes]:
        """Close all."""
        while self._windows:
            yield from self._close(next(iter(self._windows)))


def summary(line: bytes, count: int, first_ns: int, last_ns: int, pids: list[int]) -> bytes:
    """The first finding's line, with how many like it followed; times are nanoseconds of CLOCK_BOOTTIME."""
    return longer(line, count=count, firstTime=first_ns, lastTime=last_ns, pids=pids)


def longer(line: bytes, **parts: object) -> bytes:
    """A finding's line with more at its end."""
    return line.rstrip(b"\n").removesuffix(b"}") + b"," + msgspec.json.encode(parts)[1:] + b"\n"


def lines(parts: list[Part]) -> Iterator[tuple[int, int, Any, bytes]]:
    """(part, time, MARK, line) of all parts, merged."""
    columns: list[tuple[Any, ...]] = []
    for part in parts:
        time, tie, ends = part.result.key_columns()
        marks = part.result.marks()
        begins = np.concatenate([[0], ends[:-1]])
        chosen = slice(part.first, part.last)
        columns.append(tuple(c[chosen] for c in (time, tie, begins, ends, marks)))
    source = np.repeat(np.arange(len(parts)), [len(c[0]) for c in columns])
    time, tie, begins, ends, marks = (np.concatenate(c) for c in zip(*columns, strict=True))
    payloads: list[Array] = [part.result.payload for part in parts]
    for i in order(time, tie).tolist() if len(parts) > 1 else range(len(time)):
        data = payloads[source[i]][int(begins[i]) : int(ends[i])].tobytes()
        yield int(source[i]), int(time[i]), marks[i], data
