"""Steps of the engine: from the states before a column and a value's class to the states behind it. In each worker.

A small table is an array, by state and class. A table that rules of two fields of many values would make too large is
kept as the pairs that were met, which costs time and is bounded by MAX_PAIRS; the engine then begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MAX_STATES = 1 << 14
MAX_CELLS = 1 << 20
"""Of one step's table; a larger one is kept as the pairs that were met."""
MAX_PAIRS = 1 << 18
OPEN, UNKNOWN_STEP = -1, -1


@dataclass(frozen=True)
class State:
    """Tests decided so far."""

    true: frozenset[int] = frozenset()
    unknown: frozenset[int] = frozenset()


@dataclass
class Step:
    """From the states before a column to those behind it."""

    to: Array = field(default_factory=lambda: np.full((64, 16), UNKNOWN_STEP, np.int32))
    states: list[State] = field(default_factory=list)
    numbers: dict[State, int] = field(default_factory=dict)
    verdicts: Array = field(default_factory=lambda: np.full(64, OPEN, np.int32))
    """Of the states behind it: a verdict, or OPEN."""
    pairs: dict[int, int] | None = None
    """Instead of `to`, once that would be too large: the state behind, by (state before << 32 | class)."""
    decided: int = 0
    """Tests in all states behind it."""

    def find(self, state: Array, classes: Array, rows: int, columns: int) -> Array:
        """The states behind these, i64; UNKNOWN_STEP where it has not been worked out."""
        if self.pairs is None and 4 * rows * columns > MAX_CELLS:
            self.pairs = {}
            for before, kind in np.argwhere(self.to != UNKNOWN_STEP).tolist():
                self.pairs[before << 32 | kind] = int(self.to[before, kind])
            self.to = np.full((1, 1), UNKNOWN_STEP, np.int32)
        if self.pairs is None:
            self.grow(rows, columns)
            return self.to[state, classes]
        distinct, which = np.unique(state.astype(np.int64) << 32 | classes, return_inverse=True)
        known = self.pairs
        return np.array([known.get(key, UNKNOWN_STEP) for key in distinct.tolist()], np.int64)[which]

    def put(self, before: int, kind: int, behind: int) -> None:
        """What was worked out."""
        if self.pairs is None:
            self.to[before, kind] = behind
        else:
            self.pairs[before << 32 | kind] = behind

    @property
    def is_full(self) -> bool:
        """Whether it is time to begin anew."""
        return len(self.states) > MAX_STATES or len(self.pairs or ()) > MAX_PAIRS

    def grow(self, rows: int, columns: int) -> None:
        """Room for so many states before, and classes."""
        have = self.to.shape
        if rows > have[0] or columns > have[1]:
            shape = (
                max(have[0], 2 * rows if rows > have[0] else 0),
                max(have[1], 2 * columns if columns > have[1] else 0),
            )
            larger = np.full(shape, UNKNOWN_STEP, np.int32)
            larger[: have[0], : have[1]] = self.to
            self.to = larger
