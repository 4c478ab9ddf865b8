"""Rendered parts of findings by what they were made of, in each worker: bounded in bytes, whatever processes write."""

from __future__ import annotations

from typing import Any

from headrace.workers.detect.engine.memory import size_of

MAX_BYTES = 32 << 20


class Pieces(dict[Any, Any]):
    """Pieces by key; begun anew when they would take more than the bound."""

    def __init__(self, most_bytes: int = MAX_BYTES) -> None:
        super().__init__()
        self._most, self._held = most_bytes, 0

    def put(self, key: Any, piece: Any, size: int) -> None:
        """A piece of so many bytes. One that is over the bound alone is not kept."""
        size += size_of(key)
        if self._held + size > self._most:
            self.clear()
        if size <= self._most:
            self._held += size
            self[key] = piece

    def clear(self) -> None:
        """Forget all."""
        self._held = 0
        super().clear()
