"""Gaps: events that were lost and could have changed a finding (pipeline/transport/gaps.py has the table).

A finding names the ancestors of its process, so it depends on lifecycle records since the oldest of them began. If its
signature keeps state or has a threshold, it also depends on every event of the process's shard: since the state was
created, or within the time of the threshold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
MAX_SHOWN = 16
NO_GAPS = b',"complete":true,"gaps":[]}\n'


class Reach(NamedTuple):
    """How far back a finding depends on events, in nanoseconds of CLOCK_BOOTTIME. `state_ns` is 0 if the signature has
    neither state nor a threshold.
    """

    tgid: int
    time_ns: int
    ancestry_ns: int
    state_ns: int = 0


class Gaps:
    """The gaps that a worker knows."""

    def __init__(self) -> None:
        self._known: Array | None = None
        self._lifecycle = np.zeros(0, bool)

    def know(self, gaps: Array) -> None:
        """Replace all gaps. Columns: first_ns, last_ns, events, shard and shards."""
        self._known = gaps[np.argsort(gaps["first_ns"], kind="stable")] if len(gaps) else None
        if self._known is not None:
            self._lifecycle = self._known["shards"] == 0

    @property
    def none(self) -> bool:
        """Whether nothing was lost."""
        return self._known is None

    def piece(self, reach: Reach) -> bytes:
        """The end of a finding's line: `complete`, `gaps`, and the newline."""
        known = self._known
        if known is None:
            return NO_GAPS
        before = known["first_ns"] <= reach.time_ns
        counts = before & self._lifecycle & (known["last_ns"] >= reach.ancestry_ns)
        if reach.state_ns:
            mine = self._lifecycle | (reach.tgid % np.maximum(known["shards"], 1) == known["shard"])
            counts |= before & mine & (known["last_ns"] >= reach.state_ns)
        found = known[counts]
        if not len(found):
            return NO_GAPS
        shown = [(*row, of_all) for row, of_all in zip(found.tolist(), self._lifecycle[counts].tolist(), strict=True)]
        pieces = [
            f'{{"firstTime":{first},"lastTime":{last},"events":{events},"lost":"{"lifecycle" if of_all else "shard"}"}}'
            for first, last, events, _, _, of_all in shown[-MAX_SHOWN:]
        ]
        return f',"complete":false,"gaps":[{",".join(pieces)}]}}\n'.encode()
