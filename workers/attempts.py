"""Attempts at a turn, so that rows which kill a worker do not kill every successor. Runs in each worker.

A worker's attempts (pipeline/process/plan.py, ATTEMPT) are in shared memory outside the journal, because they must
survive a turn that is never committed. The number of turns committed before it identifies an attempt.

    a death in a turn                  the successor takes the rows in slices of SLICE_ROWS and commits each slice
    a death in a slice                 the successor takes that slice one timestamp at a time
    DEATHS in the rows of one moment   the successor gives these rows up: they are rejected and counted

A worker that is killed from outside dies at varying places, so no rows are given up.
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
    """Attempts of one worker."""

    def __init__(self, shared: Array, core: Core) -> None:
        """`shared`: ATTEMPT[1], possibly with the state that a predecessor left."""
        self._shared, self._core = shared, core

    @property
    def rest_ns(self) -> int:
        """End of a turn that is partly committed in slices; 0 if there is none."""
        goal_ns = int(self._shared["goal_ns"][0])
        return goal_ns if goal_ns > self._core.watermark_ns else 0

    def begin(self, turns: int) -> int:
        """Register an attempt after `turns` committed turns. Returns how many earlier ones began there and failed."""
        shared = self._shared[0]
        if int(shared["turns"]) != turns:
            shared["tries"], shared["turns"] = 0, turns
        shared["tries"] += np.uint64(1)
        return int(shared["tries"]) - 1

    def ends(self, watermark_ns: int, turns: Callable[[], int]) -> Iterator[int]:
        """Yield the time up to which to advance, step by step, until `watermark_ns` is reached.

        The caller commits each step before it requests the next. `turns` returns the number of committed turns.
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
        """Time of the last of the next `rows` rows, at most `watermark_ns`. Each step ends after the previous one, so
        late rows stay together.
        """
        return min(max(self._core.time_of(rows), self._core.watermark_ns + 1), watermark_ns)
