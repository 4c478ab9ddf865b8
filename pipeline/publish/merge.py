"""Merges lines of several workers by time.

Workers emit rows turn by turn. A turn covers the time between two watermarks. Within a turn, the rows of each worker
are sorted; a turn may span several records. `Merger` processes turns in order and merges rows by (time, CPU, thread
group). No two workers share such a key: the result does not depend on the number of workers.

While a worker has not finished a turn, the merge advances only to the last time that this worker has shown. A turn may
therefore be larger than any ring. All workers see the same watermarks, except that a worker whose ring was full when a
watermark was written skips that turn. Its rows of that turn come with a later turn and are merged by their time, as far
as they are known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from headrace.pipeline.transport.gather import IOVEC, Gather, address
from headrace.pipeline.transport.results import Result
from headrace.pipeline.transport.shm import Array

NEVER, ALWAYS = -1, 2**64


class Part(NamedTuple):
    """Lines [first, last) of one record. `token` belongs to the caller. `whole`: no lines of the record follow."""

    result: Result
    first: int
    last: int
    token: Any
    whole: bool


@dataclass
class _Waiting:
    result: Result
    token: Any
    first: int = 0

    @property
    def watermark_ns(self) -> int:
        return int(self.result.header["watermark_ns"])


@dataclass
class _Source:
    finished_ns: int = 0
    """Watermark of the last turn that has been received completely."""
    finished: list[int] = field(default_factory=list)
    """Watermarks of completely received turns, in order, without those that have been merged completely."""
    queue: deque[_Waiting] = field(default_factory=deque)

    def finish(self, turn_ns: int) -> None:
        """The turn has been received completely."""
        self.finished_ns = turn_ns
        self.finished.append(turn_ns)

    def forget(self, turn_ns: int) -> None:
        """Drop turns before this one: they have been merged completely."""
        del self.finished[: bisect_left(self.finished, turn_ns)]

    def _has_finished(self, turn_ns: int) -> bool:
        at = bisect_left(self.finished, turn_ns)
        return at < len(self.finished) and self.finished[at] == turn_ns

    def limit(self, turn_ns: int) -> int:
        """Time up to which all rows of this worker for the turn are known: ALWAYS if complete, NEVER if none are."""
        last_ns = self.queue[-1].watermark_ns if self.queue else turn_ns
        if self._has_finished(turn_ns) or self.finished_ns >= last_ns:
            return ALWAYS
        return int(self.queue[-1].result.key_columns()[0][-1]) - 1 if self.queue else NEVER

    def take(self, turn_ns: int, limit_ns: int) -> Iterator[Part]:
        """Yield lines of the turn up to the limit. If this worker skipped the turn, include lines of a later turn whose
        time falls into this one.
        """
        skipped = not self._has_finished(turn_ns)
        while self.queue:
            head = self.queue[0]
            later = head.watermark_ns > turn_ns
            if later and not skipped:
                return
            until = min(limit_ns, turn_ns) if later else limit_ns
            times = head.result.key_columns()[0]
            last = len(times) if until == ALWAYS else int(np.searchsorted(times, np.uint64(until), "right"))
            whole = last == len(times)
            if last > head.first:
                yield Part(head.result, head.first, last, head.token, whole)
            head.first = max(head.first, last)
            if not whole:
                return
            self.queue.popleft()


class Merger:
    """Merges the records of one render."""

    def __init__(self, finished_ns: Sequence[int]) -> None:
        """`finished_ns` is the last turn per worker that a predecessor has passed on completely."""
        self._sources = [_Source(ns) for ns in finished_ns]

    def add(self, worker: int, result: Result, token: Any) -> bool:
        """Add a record. Returns False if it has no rows and need not be kept."""
        source = self._sources[worker]
        if result.header["final"]:
            source.finish(int(result.header["watermark_ns"]))
        if not result.rows:
            return False
        source.queue.append(_Waiting(result, token))
        return True

    def ripe(self) -> Iterator[list[Part]]:
        """Yield lists of parts to merge with each other, in order, until more records are needed."""
        while True:
            turn = min((s.queue[0].watermark_ns for s in self._sources if s.queue), default=None)
            # a turn is over when every worker has finished it and none of its records are queued
            over = min(s.finished_ns for s in self._sources)
            for source in self._sources:
                source.forget(over if turn is None else min(turn, over))
            if turn is None:
                return
            limit = min(source.limit(turn) for source in self._sources)
            parts = [] if limit == NEVER else [p for source in self._sources for p in source.take(turn, limit)]
            if not parts:
                return
            yield parts


def merge(parts: list[Part]) -> Gather:
    """The lines of all parts in order. Consecutive lines of one worker form one piece."""
    payloads = [part.result.payload for part in parts]
    keys = [part.result.key_columns() for part in parts]
    # start and end address of each line
    ends = [address(payload) + ends.astype(np.uint64) for payload, (_, _, ends) in zip(payloads, keys, strict=True)]
    begins = [np.r_[np.uint64(address(payload)), e[:-1]] for payload, e in zip(payloads, ends, strict=True)]
    first, last = _joined(begins, parts), _joined(ends, parts)
    if len(parts) > 1:
        sequence = order(_joined([k[0] for k in keys], parts), _joined([k[1] for k in keys], parts))
        first, last = first[sequence], last[sequence]
        breaks = np.flatnonzero(first[1:] != last[:-1])
        first, last = first[np.r_[0, breaks + 1]], last[np.r_[breaks, len(last) - 1]]
    else:
        first, last = first[:1], last[-1:]
    vectors = np.empty(len(first), IOVEC)
    vectors["base"], vectors["bytes"] = first, last - first
    return Gather(vectors, payloads)


def _joined(columns: list[Array], parts: list[Part]) -> Array:
    return np.concatenate([c[p.first : p.last] for c, p in zip(columns, parts, strict=True)])


def order(time: Array, tie: Array) -> Array:
    """Indices that sort concatenated sorted runs by (time, tie). Stable for equal keys."""
    # the stable sort detects and merges the runs; the second key is rarely needed
    found = np.argsort(time, kind="stable")
    sorted_time = time[found]
    if (sorted_time[1:] == sorted_time[:-1]).any():
        found = np.lexsort((tie, time))
    return found
