"""Cost and hits of signatures: the counts of one worker and one generation of rules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from headrace.config.rules import Rule
from headrace.workers.detect.engine.matches import Matched

Array = np.ndarray[Any, Any]


class Tally:
    """Counts by event. `write` derives the counts of each rule from them."""

    def __init__(self, rules: tuple[Rule, ...], of_event: dict[int, list[int]]) -> None:
        """`of_event`: event id -> positions of the rules that look at the event."""
        self.matched = np.zeros(len(rules), np.int64)
        self.undecided = np.zeros(len(rules), np.int64)
        self.own_ns = np.zeros(len(rules), np.int64)
        self._of_event = {event: np.array(positions, np.int64) for event, positions in of_event.items()}
        self._seen = {event: [0, 0] for event in of_event}

    def add(self, event: int, rows: int, took_ns: int) -> None:
        """Count `rows` evaluated rows of an event, which took `took_ns` nanoseconds."""
        seen = self._seen[event]
        seen[0] += rows
        seen[1] += took_ns

    def add_matches(self, matched: Sequence[Matched]) -> None:
        """Count the matches of some rows; each element has the rules that match one row."""
        if matched:
            self.matched += self._counted(matched)

    def add_undecided(self, positions: Sequence[Matched]) -> None:
        """Count the rules that a limit of headrace left undecided in some rows."""
        self.undecided += self._counted(positions)

    def _counted(self, positions: Sequence[Matched]) -> Array:
        return np.bincount(np.fromiter(chain.from_iterable(positions), np.int64), minlength=len(self.matched))

    def write(self, shown: Array) -> None:
        """Write the columns `evaluated`, `matched`, `undecided` and `time_ns` of `shown`, one row per rule. If there
        are more rules than rows in `shown`, the last rules are left out.

        The rules of an event share its evaluation time in equal parts. `own_ns` is added for signatures in Python.
        """
        evaluated, time_ns = np.zeros(len(self.matched), np.int64), self.own_ns.copy()
        for event, (rows, took_ns) in self._seen.items():
            positions = self._of_event[event]
            evaluated[positions] += rows
            time_ns[positions] += took_ns // len(positions)
        columns = {"evaluated": evaluated, "matched": self.matched, "undecided": self.undecided, "time_ns": time_ns}
        for name, column in columns.items():
            count = min(len(column), len(shown))
            shown[name][:count] = column[:count]
