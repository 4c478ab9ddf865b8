"""Arguments whose meaning depends on another argument: rows of each command have separate pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from headrace.bpf.tables.catalogue import Event
from headrace.bpf.tables.reads import Argument
from headrace.workers.decode.meaning import decides
from headrace.workers.decode.values import grouped
from headrace.workers.records.blobs import Blobs, used
from headrace.workers.records.rows import Rows

Array = np.ndarray[Any, Any]


class RenderedPieces(Protocol):
    """Pieces of one argument of one event."""

    argument: Argument
    index: int

    def render(self, rows: Rows, chosen: Array, found: Blobs) -> Array:
        """The piece number for each chosen row."""


class CommandedPieces:
    """Pieces of one argument whose meaning depends on another argument (like RenderedPieces)."""

    def __init__(self, event: Event, index: int, make: Callable[[int | None], RenderedPieces]) -> None:
        """`make` creates the pieces for a command, or for None if the command is unknown."""
        self.argument, self.index, self._event = event.arguments[index], index, event
        self._of, self._mask, self._known = decides(event, self.argument)
        self._make, self._made = make, dict[int | None, RenderedPieces]()

    def render(self, rows: Rows, chosen: Array, found: Blobs) -> Array:
        """The piece number for each chosen row."""
        commands = used(rows, self._event, self._of, chosen) & np.uint64(self._mask)
        distinct, places = grouped(commands)
        numbers = np.empty(len(chosen), np.int64)
        for command, at in zip(distinct.tolist(), places, strict=True):
            key = command if command in self._known else None
            if key not in self._made:
                self._made[key] = self._make(key)
            numbers[at] = self._made[key].render(rows, chosen[at], found)
        return numbers
