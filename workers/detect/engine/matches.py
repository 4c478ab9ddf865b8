"""Rows that rules match. Kept apart from the engine: a worker without signatures does not load the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.workers.detect.code.states import Caused

Array = np.ndarray[Any, Any]
Matched = tuple[int, ...]
"""Positions of rules in their set, ascending."""


@dataclass
class Matches:
    """The rows that at least one rule matches.

    `rows`: positions of rows, ascending, i64; `rules`: the rules that match each of them.
    """

    rows: Array
    rules: list[Matched]
    data: dict[tuple[int, int], Mapping[str, Any]] = field(default_factory=dict)
    """(row, rule) -> the mapping that a signature in Python returned. It replaces the data fields of the rule."""
    caused: Mapping[tuple[int, int], Caused] = field(default_factory=dict)
    """(row, rule) -> the history of the state, for rules that keep state."""
    undecided: Mapping[int, tuple[Matched, tuple[str, ...]]] = field(default_factory=dict)
    """Row -> the rules that a limit of headrace leaves undecided, and the names of the fields concerned."""

    @classmethod
    def none(cls) -> Matches:
        """An instance without rows."""
        return cls(np.zeros(0, np.int64), [])

    def __len__(self) -> int:
        return len(self.rows)
