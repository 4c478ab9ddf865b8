"""Attempts at a turn: what ended one worker is not given whole to its successor. In each worker.

The attempts of a worker (pipeline/process/plan.py, ATTEMPT) are shared, and not in the journal: they outlive a turn
that does not end. An attempt is known by the turns that were committed before it.

    a death in a turn                  its rows are taken in slices of SLICE_ROWS, each with a commit of its own
    a death in a slice                 moment by moment, up to the slice's end
    DEATHS in the rows of one moment   these are given up: rejected, and counted

A worker that somebody else kills dies here and there, so that nothing is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from headrace.workers.core import Core

Array = np.ndarray[Any, Any]
SLICE_ROWS = 64
DEATHS = 2


class Attempts:
    """Those of one worker."""

    def __init__(self, shared: Array, core: Core) -> None:
        """`shared`: ATTEMPT[1], as a predecessor may have left it."""
        self._shared, self._core = shared, core

    @property
    def rest_ns(self) -> int:
        """Up to where a turn is still to be taken, of which slices were committed; 0 if there is none."""
        goal_ns = int(self._shared["goal_ns"][0])
        return goal_ns if goal_ns > self._core.watermark_ns else 0

    def begin(self, turns: int) -> int:
        """An attempt begins, when so many turns were committed; how many have begun there before, and did not end."""
        shared = self._shared[0]
        if int(shared["turns"]) != turns:
            shared["tries"], shared["turns"] = 0, turns
        shared["tries"] += np.uint64(1)
        return int(shared["tries"]) - 1

    def ends(self, watermark_ns: int, turns: Callable[[], int]) -> Iterator[int]:
        """Up to where to advance, step by step; who asks for the next one has committed the one before. `turns`: how
        many were committed.
        """
        end_ns = 0
        while end_ns < watermark_ns:
            deaths = self.begin(turns())
            end_ns = self._slice(watermark_ns, deaths) if deaths or self.rest_ns else watermark_ns
            yield end_ns

    def _slice(self, watermark_ns: int, deaths: int) -> int:
        shared, core = self._shared[0], self._core
        core.take_in()
        end_ns = self._end(SLICE_ROWS, watermark_ns)
        if deaths and self.rest_ns and core.watermark_ns >= int(shared["fine_ns"]):
            shared["fine_ns"], deaths = end_ns, 0
        shared["goal_ns"] = watermark_ns
        if core.watermark_ns >= int(shared["fine_ns"]):
            return end_ns
        end_ns = self._end(1, watermark_ns)
        if deaths >= DEATHS:
            core.give_up(end_ns)
        return end_ns

    def _end(self, rows: int, watermark_ns: int) -> int:
        """The time of the last of the next rows. Each step is later than the one before, so rows that came too late
        stay together.
        """
        return min(max(self._core.time_of(rows), self._core.watermark_ns + 1), watermark_ns)
