"""Steps of the engine: from the states before a column and the class of a value to the states after it. Each worker has
its own.

A small table is an array, indexed by state and class. Rules on two fields with many values each would make it too
large; then the step stores only the pairs that occurred, which is slower. Each step counts its bytes as it grows. The
engine bounds the total, and drops all steps of an event that exceeds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
MAX_CELLS = 1 << 20
"""Cells in the table of one step. A larger table is stored as pairs."""
STATE_BYTES, PAIR_BYTES = 300, 200
"""Approximate bytes of a state besides its bits (the tuple, its number, its verdict), and of a stored pair."""
OPEN, UNKNOWN_STEP = -1, -1


def bits(numbers: Iterable[int]) -> int:
    """The set of these numbers as an integer: bit n is set if n is in the set."""
    found = 0
    for number in numbers:
        found |= 1 << number
    return found


def numbers_in(found: int) -> Iterable[int]:
    """The numbers in a set made by bits(), ascending."""
    while found:
        lowest = found & -found
        yield lowest.bit_length() - 1
        found ^= lowest


class State(NamedTuple):
    """The tests decided so far, as sets made by bits(). A decided test in neither `true` nor `unknown` is false."""

    true: int = 0
    unknown: int = 0
    limited: int = 0
    """The subset of `unknown` for which a limit of headrace is the reason."""

    @property
    def bytes(self) -> int:
        """Approximate bytes that the state takes in a table."""
        return STATE_BYTES + sum(map(getsizeof, self))


@dataclass
class Step:
    """The transition from the states before a column to the states after it."""

    to: Array = field(default_factory=lambda: np.full((64, 16), UNKNOWN_STEP, np.int32))
    states: list[State] = field(default_factory=list)
    numbers: dict[State, int] = field(default_factory=dict)
    verdicts: Array = field(default_factory=lambda: np.full(64, OPEN, np.int32))
    """i32 by number of the state after the column: the number of a verdict, or OPEN."""
    pairs: dict[int, int] | None = None
    """Replaces `to` once that would be too large: (state before << 32 | class) -> state after."""
    held: int = 0
    """Bytes of all states after the column."""

    @property
    def bytes(self) -> int:
        """Approximate bytes of the whole step."""
        return self.held + self.to.nbytes + PAIR_BYTES * len(self.pairs or ())

    def find(self, state: Array, classes: Array, rows: int, columns: int) -> Array:
        """The state after each pair of `state` and `classes`, as integers; UNKNOWN_STEP if the pair has not been
        computed yet.

        `rows` and `columns` are the numbers of known states and classes. Switches from `to` to `pairs` if the table
        would become too large.
        """
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
        """Store a computed transition."""
        if self.pairs is None:
            self.to[before, kind] = behind
        else:
            self.pairs[before << 32 | kind] = behind

    def add(self, state: State) -> int:
        """Add a state that is not known yet, with the verdict OPEN. Returns its number."""
        found = self.numbers[state] = len(self.states)
        self.states.append(state)
        self.held += state.bytes
        if found >= len(self.verdicts):
            self.verdicts = np.concatenate([self.verdicts, np.full(found, OPEN, np.int32)])
        return found

    def grow(self, rows: int, columns: int) -> None:
        """Make room in `to` for this many states before the column, and classes."""
        have = self.to.shape
        if rows > have[0] or columns > have[1]:
            shape = (
                max(have[0], 2 * rows if rows > have[0] else 0),
                max(have[1], 2 * columns if columns > have[1] else 0),
            )
            larger = np.full(shape, UNKNOWN_STEP, np.int32)
            larger[: have[0], : have[1]] = self.to
            self.to = larger
