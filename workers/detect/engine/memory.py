"""What was worked out before, by key: bounded in keys and bytes, counted, and as fast as a dict.

    recent  {key: number}     looked at first
    before  {key: number}     what was recent until `recent` was full

A key of `before` that is met again moves to `recent`. When `recent` is full it becomes `before`, and what `before`
held is forgotten: of keys that keep coming, none is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from headrace.workers.decode.values import by_runs

Array = np.ndarray[Any, Any]
MAX_KEYS, MAX_BYTES = 1 << 17, 16 << 20
"""Of each of the two."""
KEY_BYTES, PART_BYTES = 120, 40
"""About what a key takes beside its texts, and a part of one."""


def size_of(key: Any) -> int:
    """About how many bytes a key takes."""
    return KEY_BYTES + _texts(key)


def _texts(key: Any) -> int:
    if isinstance(key, tuple):  # a Text as well
        return sum(PART_BYTES + _texts(part) for part in key)
    return len(key) if isinstance(key, bytes | str) else 0


class Memory(dict[Any, int]):
    """Numbers by key; `work_out` gives those of keys that are not known, many at once."""

    def __init__(
        self, work_out: Callable[[list[Any]], list[int]], most: int = MAX_KEYS, most_bytes: int = MAX_BYTES
    ) -> None:
        super().__init__()
        self._work_out, self._most, self._most_bytes = work_out, most, most_bytes
        self._before: dict[Any, int] = {}
        self._bytes = self._bytes_before = 0
        self.looked_up = self.misses = self.evicted = 0

    def _learn(self, keys: Iterable[Any]) -> dict[Any, int]:
        """Numbers of keys that `recent` does not have."""
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
        """About how many bytes all keys take."""
        return self._bytes + self._bytes_before

    def forget(self) -> None:
        """Everything: what keys stand for has changed."""
        self.evicted += len(self) + len(self._before)
        self.clear()
        self._before.clear()
        self._bytes = self._bytes_before = 0

    def numbers(self, keys: Array | list[Any]) -> Array:
        """Of all keys, i64. Keys of an array that follow their like are not looked up."""
        self.looked_up += len(keys)
        return self._of(keys) if isinstance(keys, list) else by_runs(keys, self._of)

    def _of(self, keys: list[Any]) -> Array:
        found = list(map(self.get, keys))
        if None in found:
            learnt = self._learn(key for key, number in zip(keys, found, strict=True) if number is None)
            found = [learnt[key] if number is None else number for key, number in zip(keys, found, strict=True)]
        return np.array(found, np.int64)
