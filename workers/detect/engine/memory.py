"""A cache from keys to numbers: bounded in keys and bytes, with counters, and as fast as a dict.

    recent  {key: number}     looked up first
    before  {key: number}     the previous `recent`

A key that is found in `before` moves to `recent`. When `recent` is full it becomes `before`, and the old `before` is
dropped. A key that recurs often enough is therefore never evicted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from headrace.workers.decode.values import by_runs

Array = np.ndarray[Any, Any]
MAX_KEYS, MAX_BYTES = 1 << 17, 16 << 20
"""Bounds of `recent` and of `before`, each."""
KEY_BYTES, PART_BYTES = 120, 40
"""Approximate bytes of a key besides its texts, and of each part of a tuple."""


def size_of(key: Any) -> int:
    """Approximate bytes that a key takes."""
    return KEY_BYTES + _texts(key)


def _texts(key: Any) -> int:
    if isinstance(key, tuple):  # also a Text, which is a NamedTuple
        return sum(PART_BYTES + _texts(part) for part in key)
    return len(key) if isinstance(key, bytes | str) else 0


class MemoCache(dict[Any, int]):
    """Numbers by key. `work_out` computes the numbers of several unknown keys in one call."""

    def __init__(
        self, work_out: Callable[[list[Any]], list[int]], most: int = MAX_KEYS, most_bytes: int = MAX_BYTES
    ) -> None:
        super().__init__()
        self._work_out, self._most, self._most_bytes = work_out, most, most_bytes
        self._before: dict[Any, int] = {}
        self._bytes = self._bytes_before = 0
        self.looked_up = self.misses = self.evicted = 0

    def _learn(self, keys: Iterable[Any]) -> dict[Any, int]:
        """The numbers of keys that are not in `recent`. Adds them to `recent` as far as they fit."""
        found: dict[Any, int] = {}
        unknown: list[Any] = []
        for key in dict.fromkeys(keys):
            before = self._before.get(key)
            if before is None:
                unknown.append(key)
            else:
                found[key] = before
        if unknown:
            self.misses += len(unknown)
            found.update(zip(unknown, self._work_out(unknown), strict=True))
        sizes = list(map(size_of, found))
        if len(self) + len(found) > self._most or self._bytes + sum(sizes) > self._most_bytes:
            self.evicted += len(self._before)
            self._before, self._bytes_before = dict(self), self._bytes
            self.clear()
            self._bytes = 0
        for (key, number), size in itertools.islice(zip(found.items(), sizes, strict=True), self._most):
            if self._bytes + size <= self._most_bytes:
                self[key] = number
                self._bytes += size
        return found

    @property
    def held(self) -> int:
        """Approximate bytes of all keys."""
        return self._bytes + self._bytes_before

    def forget(self) -> None:
        """Drop all keys, because their numbers are no longer valid."""
        self.evicted += len(self) + len(self._before)
        self.clear()
        self._before.clear()
        self._bytes = self._bytes_before = 0

    def numbers(self, keys: Array | list[Any]) -> Array:
        """The number of each key, i64. In an array, a run of equal keys costs one lookup."""
        self.looked_up += len(keys)
        return self._of(keys) if isinstance(keys, list) else by_runs(keys, self._of)

    def _of(self, keys: list[Any]) -> Array:
        found = list(map(self.get, keys))
        if None in found:
            learnt = self._learn(key for key, number in zip(keys, found, strict=True) if number is None)
            found = [learnt[key] if number is None else number for key, number in zip(keys, found, strict=True)]
        return np.array(found, np.int64)
