"""Steps of the engine: from the states before a column and a value's class to the states behind it. In each worker.

A small table is an array, by state and class. A table that rules of two fields of many values would make too large is
kept as the pairs that were met, which costs time. What all of it takes is counted in bytes, as it is made, and bounded
by the engine, which then begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
MAX_CELLS = 1 << 20
"""Of one step's table; a larger one is kept as the pairs that were met."""
STATE_BYTES, PAIR_BYTES = 300, 200
"""About what a state takes beside its bits (itself, its number by state, its verdict), and a pair that was met."""
OPEN, UNKNOWN_STEP = -1, -1


def bits(numbers: Iterable[int]) -> int:
    """The set of these numbers: bit n stands for n."""
    found = 0
    for number in numbers:
        found |= 1 << number
    return found


def numbers_in(found: int) -> Iterable[int]:
    """The numbers in such a set."""
    while found:
        lowest = found & -found
        yield lowest.bit_length() - 1
        found ^= lowest


class State(NamedTuple):
    """Tests decided so far, as sets of bits()."""

    true: int = 0
    unknown: int = 0
    limited: int = 0
    """Of those that are unknown, the ones for which a limit of ours is the reason."""

    @property
    def bytes(self) -> int:
        """About what it takes in a table."""
        return STATE_BYTES + sum(map(getsizeof, self))


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
    held: int = 0
    """Bytes of all states behind it."""

    @property
    def bytes(self) -> int:
        """About what all of it takes."""
        return self.held + self.to.nbytes + PAIR_BYTES * len(self.pairs or ())

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

    def add(self, state: State) -> int:
        """The number of a state that is not there yet. Its verdict is OPEN."""
        found = self.numbers[state] = len(self.states)
        self.states.append(state)
        self.held += state.bytes
        if found >= len(self.verdicts):
            self.verdicts = np.concatenate([self.verdicts, np.full(found, OPEN, np.int32)])
        return found

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
