"""Cache of rendered parts of findings, in each worker. It is bounded in bytes, whatever traced processes write."""

from __future__ import annotations

from typing import Any

from headrace.workers.detect.engine.memory import size_of

MAX_BYTES = 32 << 20


class FindingPieces(dict[Any, Any]):
    """Pieces by key. The cache is cleared when it would exceed the bound."""

    def __init__(self, most_bytes: int = MAX_BYTES) -> None:
        super().__init__()
        self._most, self._held = most_bytes, 0

    def put(self, key: Any, piece: Any, size: int) -> None:
        """Add a piece of `size` bytes. A piece that exceeds the bound alone is not kept."""
        size += size_of(key)
        if self._held + size > self._most:
            self.clear()
        if size <= self._most:
            self._held += size
            self[key] = piece

    def clear(self) -> None:
        """Drop all pieces."""
        self._held = 0
        super().clear()
