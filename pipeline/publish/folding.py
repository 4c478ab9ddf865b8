"""Folds repeated findings after the workers' lines are merged, and evaluates thresholds.

The first finding of a kind is published at once and opens a window. Repeats within the window are only counted. When
the window ends, the limit of windows is reached or the run ends, one summary line is published if there were repeats:
the line of the first finding with `count`, `firstTime`, `lastTime` and some `pids`. Windows are measured in event time;
`expire` closes windows for which no later event arrives.

Thresholds of signatures (config/thresholds.py) are evaluated here too. The match that completes a threshold is a
finding; the matches before it count as `below`. A summary line does not count as a finding.

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
"""Maximum total size of the lines kept for summaries."""
SAMPLE_PIDS = 16
RULE = re.compile(rb'"signatureID":"([^"]+)".*?"severity":"([a-z]+)"')
PID = re.compile(rb'"process":\{"pid":(\d+)')
SECOND_NS = 10**9


def topic(line: bytes) -> bytes:
    """The topic of a finding, `finding/SEVERITY/ID/`.

    The other fields of the rule are between the two values; quotes in them are escaped.
    """
    found = RULE.search(line)
    assert found
    return b"finding/%s/%s/" % (found[2], found[1])


@dataclass
class Stayed:
    """Counts of findings in a record that are not published: repeats, and matches below a threshold."""

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
    """Folds findings. `window_s` 0 disables folding."""

    def __init__(self, window_s: int) -> None:
        self._window_ns = window_s * SECOND_NS
        self._thresholds = Thresholds()
        self._windows: dict[int, _Window] = {}
        self._bytes = 0

    @property
    def folds(self) -> bool:
        """Whether folding is enabled."""
        return self._window_ns > 0

    def take(self, parts: list[Part], stayed: list[Stayed]) -> Iterator[bytes]:
        """Yield the lines to publish now, in time order. Adds the numbers of all other lines to `stayed`, per part."""
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
        """Yield (part, time, fold, line) of matches that are findings; drops those below their threshold."""
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
        """Close windows that have ended at `now_ns` (CLOCK_BOOTTIME). Yields their summaries."""
        while self._windows:
            oldest = next(iter(self._windows))
            if now_ns < self._windows[oldest].first_ns + self._window_ns:
                return
            yield from self._close(oldest)

    def end(self) -> Iterator[bytes]:
        """Close all windows. Yields their summaries."""
        while self._windows:
            yield from self._close(next(iter(self._windows)))


def summary(line: bytes, count: int, first_ns: int, last_ns: int, pids: list[int]) -> bytes:
    """The line of the first finding with the number of repeats. Times are CLOCK_BOOTTIME in ns."""
    return longer(line, count=count, firstTime=first_ns, lastTime=last_ns, pids=pids)


def longer(line: bytes, **parts: object) -> bytes:
    """The line of a finding with fields appended."""
    return line.rstrip(b"\n").removesuffix(b"}") + b"," + msgspec.json.encode(parts)[1:] + b"\n"


def lines(parts: list[Part]) -> Iterator[tuple[int, int, Any, bytes]]:
    """Yield (part, time, MARK, line) of all parts, merged."""
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
