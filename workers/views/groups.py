"""Keys of groups of rows that are rendered alike: event, flags and marks (workers/views/pieces.py).

event (16 bits) | flags (8) | late (1) | container started (1) | - (6) | number of the mask of policies
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.bpf.layout import CONTAINER_STARTED
from headrace.workers.records.rows import Contexts, Rows
from headrace.workers.views.style import RowMarks

Array = np.ndarray[Any, Any]


class GroupKeys:
    """Keys of rows. Masks of policies are numbered in order of arrival; the empty mask is number 0."""

    def __init__(self) -> None:
        self._masks = [0]
        self._numbers = {0: 0}

    def of(self, rows: Rows, contexts: Contexts) -> Array:
        """The key of each row, u32 or i64."""
        started = contexts.table["container_state"][rows.who] >= CONTAINER_STARTED
        marks = rows.late.astype(np.uint32) | started.astype(np.uint32) << 1
        keys: Array = rows.event.astype(np.uint32) | rows.flags.astype(np.uint32) << 16 | marks << 24
        if not rows.policies.any():
            return keys
        distinct, which = np.unique(rows.policies, return_inverse=True)
        for mask in distinct.tolist():
            if mask not in self._numbers:
                self._numbers[mask] = len(self._masks)
                self._masks.append(mask)
        numbers = np.array([self._numbers[mask] for mask in distinct.tolist()], np.int64)
        return keys.astype(np.int64) | numbers[which] << 32

    def read(self, key: int) -> tuple[int, int, RowMarks]:
        """Id of the event, flags and marks."""
        marks = RowMarks(bool(key >> 24 & 1), bool(key >> 25 & 1), self._masks[key >> 32])
        return key & 0xFFFF, key >> 16 & 0xFF, marks

    def clear(self) -> None:
        """Forget the numbers of masks."""
        self._masks, self._numbers = [0], {0: 0}
