"""History of processes: the rows of the last seconds, for findings with `--before`.

    turn   turn   turn   | current turn
    rows   rows   rows   | rows ... the one that a signature matched

The history is bounded in bytes; the oldest turns are dropped first, and their rows are counted. All rows refer to one
table of contexts, so the history is cleared when that table is.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from headrace.workers.records.rows import Contexts, Rows, concatenate

Array = np.ndarray[Any, Any]
MAX_BYTES = 32 << 20
MAX_EVENTS = 64
"""Events per finding; the latest are kept."""
SECOND_NS = 10**9


class HistoryTurn(NamedTuple):
    """Rows of one turn, and the thread group of each."""

    rows: Rows
    tgid: Array


class History:
    """The history of one worker."""

    def __init__(self, seconds: float, most_bytes: int = MAX_BYTES) -> None:
        self._span_ns, self._most = int(seconds * SECOND_NS), most_bytes
        self._turns: deque[HistoryTurn] = deque()
        self._bytes = 0
        self._generation = 0
        self.dropped = 0
        """Rows that were dropped before their time was over."""

    def follow(self, contexts: Contexts) -> None:
        """Drop all rows if the table of contexts was cleared since."""
        if self._generation != contexts.generation:
            self.dropped += sum(len(turn.rows) for turn in self._turns)
            self._turns.clear()
            self._generation, self._bytes = contexts.generation, 0

    def keep(self, rows: Rows, contexts: Contexts) -> None:
        """Add the rows of a finished turn."""
        self.follow(contexts)
        if not len(rows):
            return
        kept = rows.compact()
        self._turns.append(HistoryTurn(kept, contexts.table["tgid"][kept.who]))
        self._bytes += kept.data.nbytes
        oldest_ns = int(rows.time_ns[-1]) - self._span_ns
        while self._turns and int(self._turns[0].rows.time_ns[-1]) < oldest_ns:
            self._bytes -= self._turns.popleft().rows.data.nbytes
        while self._bytes > self._most:
            turn = self._turns.popleft()
            self._bytes -= turn.rows.data.nbytes
            self.dropped += len(turn.rows)

    def before(self, now: HistoryTurn, row: int) -> tuple[Rows | None, int]:
        """The rows of the same process in the time before a row of the current turn, None if there are none; and how
        many more there were beyond MAX_EVENTS.
        """
        tgid, time_ns = now.tgid[row], int(now.rows.time_ns[row])
        since = np.uint64(max(0, time_ns - self._span_ns))
        parts: list[Rows] = []
        left, more = MAX_EVENTS, 0
        earlier = HistoryTurn(now.rows.select(slice(0, row)), now.tgid[:row])
        for turn in (earlier, *reversed(self._turns)):
            times = turn.rows.time_ns
            found = np.flatnonzero((turn.tgid == tgid) & (times >= since) & (times <= np.uint64(time_ns)))
            more += max(0, len(found) - left)
            found = found[len(found) - min(left, len(found)) :]
            left -= len(found)
            if len(found):
                parts.append(turn.rows.select(found))
        return (concatenate(parts[::-1]) if parts else None), more
