"""Cache of rendered pieces of lines. A repeated piece is rendered once and then referred to by number.

    Cache:  key -> number                    a dict for each kind of piece
    Store:  number -> piece, length          two arrays, for lookups of many numbers at once

A store is bounded by pieces and by bytes. The user of a store clears it when it is `full`, and with it all of its
caches, because every number handed out before becomes invalid. Caches are emptied rather than replaced: they are in
reference cycles, whose memory is only released when the garbage collector runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.workers.decode.values import by_runs

Array = np.ndarray[Any, Any]
MAX_PIECES = 1 << 16
MAX_BYTES = 16 << 20


class Store:
    """Pieces by number. Number 0 is the empty piece."""

    def __init__(self) -> None:
        self.caches: list[Cache] = []
        self._begin()

    def _begin(self) -> None:
        self._pieces = np.empty(1024, object)
        self._lengths = np.zeros(1024, np.int64)
        self._count = self._bytes = 0
        self.add("")

    @property
    def full(self) -> bool:
        """Whether the store should be cleared. It may exceed its bounds until then."""
        return self._count > MAX_PIECES or self._bytes > MAX_BYTES

    def clear(self) -> None:
        """Remove all pieces and empty all caches."""
        for cache in self.caches:
            cache.clear()
        self._begin()

    def add(self, piece: str) -> int:
        """Adds a piece and returns its number."""
        if self._count == len(self._pieces):
            self._pieces = np.concatenate([self._pieces, np.empty(self._count, object)])
            self._lengths = np.concatenate([self._lengths, np.zeros(self._count, np.int64)])
        number = self._count
        data = piece.encode("utf-8", "replace")
        self._pieces[number], self._lengths[number] = data, len(data)
        self._count += 1
        self._bytes += len(data)
        return number

    def pieces(self, numbers: Array) -> Array:
        """The pieces, as an array of bytes objects."""
        found: Array = self._pieces[numbers]
        return found

    def lengths(self, numbers: Array) -> Array:
        """The lengths of the pieces in bytes, i64."""
        found: Array = self._lengths[numbers]
        return found


class Cache(dict[Any, int]):
    """Piece numbers by key. Renders missing pieces."""

    def __init__(self, store: Store, render: Callable[[Any], str]) -> None:
        super().__init__()
        self._store, self._render = store, render
        store.caches.append(self)

    def __missing__(self, key: Any) -> int:
        number = self[key] = self._store.add(self._render(key))
        return number

    def numbers(self, keys: Array) -> Array:
        """Numbers of all keys (an array of integers). Only the first key of each run is looked up."""
        return by_runs(keys, self.numbers_of)

    def numbers_of(self, keys: list[Any]) -> Array:
        """Numbers of all keys, each looked up."""
        return np.fromiter(map(self.__getitem__, keys), np.int64, len(keys))
