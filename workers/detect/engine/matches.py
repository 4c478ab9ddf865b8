"""What signatures have found in some rows. Apart, so that a worker without signatures loads nothing of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.workers.detect.code.states import Caused

Array = np.ndarray[Any, Any]
Matched = tuple[int, ...]
"""Positions of rules, in order."""


@dataclass
class Matches:
    """Rows that rules match: positions of rows, and of each the rules. In the order of rows."""

    rows: Array
    rules: list[Matched]
    data: dict[tuple[int, int], Mapping[str, Any]] = field(default_factory=dict)
    """What signatures in Python say of (row, rule), in place of data fields."""
    caused: Mapping[tuple[int, int], Caused] = field(default_factory=dict)
    """Of (row, rule), if the rule keeps something: since when, and the lines of the events that changed it."""
    undecided: Mapping[int, tuple[Matched, tuple[str, ...]]] = field(default_factory=dict)
    """Of a row: rules that a limit of ours leaves undecided, and for which fields."""

    @classmethod
    def none(cls) -> Matches:
        """Nothing was found."""
        return cls(np.zeros(0, np.int64), [])

    def __len__(self) -> int:
        return len(self.rows)
