"""What signatures cost, and what the memory of their values is good for: counts of one worker and generation."""

from __future__ import annotations

from typing import Any

import numpy as np

from config.rules import Rule

Array = np.ndarray[Any, Any]
TALLY = np.dtype([("evaluated", "<u8"), ("matched", "<u8"), ("time_ns", "<u8")])
"""Of a rule. `time_ns`: what its events cost, shared by all rules that look at them, and what its own code took."""
MEMORY = ("scanned", "looked_up", "worked_out", "evicted", "before_dropped")
"""Values of fields: seen in blocks of texts, looked up by a key, worked out since the key was new, and forgotten. Of
what processes did before (history.py): events that were forgotten before their time.
"""


class Tally:
    """Counts by event, from which those of rules are worked out when somebody wants them."""

    def __init__(self, rules: tuple[Rule, ...], of_event: dict[int, list[int]]) -> None:
        """`of_event`: positions of the rules that look at an event, by its id."""
        self.matched = np.zeros(len(rules), np.int64)
        self.own_ns = np.zeros(len(rules), np.int64)
        self._of_event = {event: np.array(positions, np.int64) for event, positions in of_event.items()}
        self._seen = {event: [0, 0] for event in of_event}

    def add(self, event: int, rows: int, took_ns: int) -> None:
        """So many rows of an event were looked at."""
        seen = self._seen[event]
        seen[0] += rows
        seen[1] += took_ns

    def counted(self) -> Array:
        """TALLY of all rules."""
        found = np.zeros(len(self.matched), TALLY)
        found["matched"], found["time_ns"] = self.matched, self.own_ns
        for event, (rows, took_ns) in self._seen.items():
            positions = self._of_event[event]
            found["evaluated"][positions] += rows
            found["time_ns"][positions] += took_ns // len(positions)
        return found
