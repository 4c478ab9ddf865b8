"""How much of a turn a worker has written, per render: for its successor, or for the accounting if there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.workers.records.rows import Rows

Array = np.ndarray[Any, Any]


class Turn:
    """The current turn. `already` and `was_done` hold the progress that a predecessor left."""

    def __init__(self, state: Any, topics: Sequence[bool], loss: int) -> None:
        """`topics`: for each render of events, whether it is published by topic, which renders only some of the rows.
        `loss`: id of the loss event, which is not counted per CPU.
        """
        self.written, self.done = np.zeros_like(state["written"]), np.zeros_like(state["done"])
        self._already, self.was_done = state["written"].copy(), state["done"].copy()
        self._topics, self._loss, self._told = topics, loss, 0
        self._rows: Rows | None = None

    @property
    def begun(self) -> bool:
        """Whether a predecessor has written part of the next turn."""
        return bool(self._already.any() or self.was_done.any())

    def begin(self, rows: Rows) -> None:
        """Start a turn of `rows`."""
        self.written[:] = self.done[:] = 0
        self._rows, self._told = rows, 0

    def end(self) -> None:
        """End the turn: everything is written and counted as delivered."""
        self._already[:] = self.was_done[:] = 0
        self._rows = None

    def skip(self, render: int) -> None:
        """Skip a render that a predecessor has written completely."""
        self.written[render] = self._already[render]

    def already(self, render: int) -> int:
        """Number of rows that a predecessor has written."""
        return int(self._already[render])

    def leave_out(self, render: int, rows: int) -> int:
        """Skip rows that a predecessor has written. Returns how many of the next `rows` rows these are."""
        count = min(int(self._already[render]), rows)
        self._already[render] -= np.uint64(count)
        self.written[render] += np.uint64(count)
        return count

    def _handed(self, rows: int) -> int:
        """Number of rows that some output has received. With topics, individual rows are unknown: all rows count as
        soon as one is written.
        """
        whole = (self.done[n] or (is_topic and self.written[n]) for n, is_topic in enumerate(self._topics))
        if any(whole):
            return rows
        return min(rows, max((int(n) for n in self.written[: len(self._topics)]), default=0))

    def write_progress(self, state: Any) -> None:
        """Write to the journal state, during the turn: what is written, and the event and CPU counts of these rows."""
        state["written"], state["done"] = self.written, self.done
        if self._rows is None or (count := self._handed(len(self._rows))) == self._told:
            return
        self._told = count
        event, cpus = self._rows.event[:count], len(state["handed_cpu"])
        state["handed"] = np.bincount(event, minlength=len(state["handed"]))
        state["handed_cpu"] = np.bincount(self._rows.cpu[:count][event != self._loss], minlength=cpus)[:cpus]
