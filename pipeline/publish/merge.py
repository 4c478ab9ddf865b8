"""Lines of several workers in the order of time.

Workers let go of rows turn by turn: a turn is what lies between two watermarks. Within a turn every worker's
rows are sorted; a turn may come in several records. `Merger` takes the turns one after the other and merges
rows by (time, CPU, thread group), a key that no two workers share: what comes out does not depend on how many
there are.

A worker that has not finished a turn limits it to the last time it has shown, so a turn may be larger than any
ring. Watermarks are the same for all, but for a worker whose ring was full when one was written: it skips that
turn, and its rows of it come in a later one. They are merged by their time, as far as they have been shown.
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
    """Lines [first, last) of one record; `token` is the caller's, `whole` says that none follow."""

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
    """Watermark of the last turn that is all here."""
    finished: list[int] = field(default_factory=list)
    """Watermarks of turns that are all here, in order, without those that are over."""
    queue: deque[_Waiting] = field(default_factory=deque)

    def finish(self, turn_ns: int) -> None:
        """This turn is all here."""
        self.finished_ns = turn_ns
        self.finished.append(turn_ns)

    def forget(self, turn_ns: int) -> None:
        """Turns before this one are over."""
        del self.finished[: bisect_left(self.finished, turn_ns)]

    def _has_finished(self, turn_ns: int) -> bool:
        at = bisect_left(self.finished, turn_ns)
        return at < len(self.finished) and self.finished[at] == turn_ns

    def limit(self, turn_ns: int) -> int:
        """Up to which time this worker has shown its rows of the turn."""
        last_ns = self.queue[-1].watermark_ns if self.queue else turn_ns
        if self._has_finished(turn_ns) or self.finished_ns >= last_ns:
            return ALWAYS
        return int(self.queue[-1].result.key_columns()[0][-1]) - 1 if self.queue else NEVER

    def take(self, turn_ns: int, limit_ns: int) -> Iterator[Part]:
        """Lines of the turn up to the limit; of a later turn, if this one was skipped, those that fall into it."""
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
    """Merges the records of one output format."""

    def __init__(self, finished_ns: Sequence[int]) -> None:
        """`finished_ns`: for each worker, the last turn that was all handed on before."""
        self._sources = [_Source(ns) for ns in finished_ns]

    def add(self, worker: int, result: Result, token: Any) -> bool:
        """Take a record; False if it has no rows and needs no keeping."""
        source = self._sources[worker]
        if result.header["final"]:
            source.finish(int(result.header["watermark_ns"]))
        if not result.rows:
            return False
        source.queue.append(_Waiting(result, token))
        return True

    def ripe(self) -> Iterator[list[Part]]:
        """Parts to be merged with each other, in order, until more must be known."""
        while True:
            turn = min((s.queue[0].watermark_ns for s in self._sources if s.queue), default=None)
            # a turn that every worker has finished and that nothing is queued of is over
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
    """The lines of all parts in order: runs of one worker's lines stay in one piece."""
    payloads = [part.result.payload for part in parts]
    keys = [part.result.key_columns() for part in parts]
    # where each line begins in memory, and where it ends
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
    """Of sorted runs one after the other: by (time, tie), and as they stand where both are equal."""
    # a stable sort finds the runs and merges them; the second key is seldom needed
    found = np.argsort(time, kind="stable")
    sorted_time = time[found]
    if (sorted_time[1:] == sorted_time[:-1]).any():
        found = np.lexsort((tie, time))
    return found
