"""Pieces of lines that were rendered before, by number: what repeats is text once, and a number from then on.

    Cache:  key -> number                    a dict for each kind of piece
    Store:  number -> piece, length          two arrays, so that many numbers are looked up at once

A store is bounded, by pieces and by bytes. Who finds it `full` clears it, and with it all of its caches, since
every number handed out before is dead then. The caches are emptied and not replaced: they are part of cycles
of objects, and what hangs on such a cycle waits for the garbage collector, which takes its time.
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
        """Whether it is time to clear it. A store takes more than its bounds until then."""
        return self._count > MAX_PIECES or self._bytes > MAX_BYTES

    def clear(self) -> None:
        """Begin anew, with all caches empty."""
        for cache in self.caches:
            cache.clear()
        self._begin()

    def add(self, piece: str) -> int:
        """The number of a new piece."""
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
        """Their lengths in bytes, i64."""
        found: Array = self._lengths[numbers]
        return found


class Cache(dict[Any, int]):
    """Numbers of pieces by key; renders what is missing."""

    def __init__(self, store: Store, render: Callable[[Any], str]) -> None:
        super().__init__()
        self._store, self._render = store, render
        store.caches.append(self)

    def __missing__(self, key: Any) -> int:
        number = self[key] = self._store.add(self._render(key))
        return number

    def numbers(self, keys: Array) -> Array:
        """Numbers of all keys (an array of integers). Keys that follow their like are not looked up."""
        return by_runs(keys, self.numbers_of)

    def numbers_of(self, keys: list[Any]) -> Array:
        """Numbers of all keys, each looked up."""
        return np.fromiter(map(self.__getitem__, keys), np.int64, len(keys))
