"""How much of a turn a worker has written, by render: for its successor, and for the books if there will be none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.workers.records.rows import Rows

Array = np.ndarray[Any, Any]


class Turn:
    """The turn at hand. `already` and `was_done`: the same, as a predecessor has left them."""

    def __init__(self, state: Any, topics: Sequence[bool], loss: int) -> None:
        """`topics`: of each render of events, whether it goes out by topics, where only some rows are rendered; `loss`:
        the event that is counted for no CPU.
        """
        self.written, self.done = np.zeros_like(state["written"]), np.zeros_like(state["done"])
        self._already, self.was_done = state["written"].copy(), state["done"].copy()
        self._topics, self._loss, self._told = topics, loss, 0
        self._rows: Rows | None = None

    @property
    def begun(self) -> bool:
        """Whether a predecessor has written some of the next turn."""
        return bool(self._already.any() or self.was_done.any())

    def begin(self, rows: Rows) -> None:
        """These are its rows."""
        self.written[:] = self.done[:] = 0
        self._rows, self._told = rows, 0

    def end(self) -> None:
        """All is written, and counted as delivered."""
        self._already[:] = self.was_done[:] = 0
        self._rows = None

    def skip(self, render: int) -> None:
        """A predecessor has written all of it."""
        self.written[render] = self._already[render]

    def already(self, render: int) -> int:
        """So many rows has a predecessor written."""
        return int(self._already[render])

    def leave_out(self, render: int, rows: int) -> int:
        """How many of these rows, the next ones, a predecessor has written."""
        count = min(int(self._already[render]), rows)
        self._already[render] -= np.uint64(count)
        self.written[render] += np.uint64(count)
        return count

    def _handed(self, rows: int) -> int:
        """Rows that some output has been given. Of topics nobody knows which: all of them, once there is a first."""
        whole = (self.done[n] or (is_topic and self.written[n]) for n, is_topic in enumerate(self._topics))
        if any(whole):
            return rows
        return min(rows, max((int(n) for n in self.written[: len(self._topics)]), default=0))

    def tell(self, state: Any) -> None:
        """Into the journal, while the turn goes on: what is written, and which events these are."""
        state["written"], state["done"] = self.written, self.done
        if self._rows is None or (count := self._handed(len(self._rows))) == self._told:
            return
        self._told = count
        event, cpus = self._rows.event[:count], len(state["handed_cpu"])
        state["handed"] = np.bincount(event, minlength=len(state["handed"]))
        state["handed_cpu"] = np.bincount(self._rows.cpu[:count][event != self._loss], minlength=cpus)[:cpus]
