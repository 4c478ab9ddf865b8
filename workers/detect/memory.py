"""What was worked out before, by key: bounded, counted, and as fast as a dict.

    recent  {key: number}     looked at first
    before  {key: number}     what was recent until `recent` was full

A key of `before` that is met again moves to `recent`. When `recent` is full it becomes `before`, and what `before`
held is forgotten: of keys that keep coming, none is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MAX_KEYS = 1 << 17


class Memory(dict[Any, int]):
    """Numbers by key; `work_out` gives what is not known."""

    def __init__(self, work_out: Callable[[Any], int], most: int = MAX_KEYS) -> None:
        super().__init__()
        self._work_out, self._most = work_out, most
        self._before: dict[Any, int] = {}
        self.looked_up = self.worked_out = self.evicted = 0

    def __missing__(self, key: Hashable) -> int:
        found = self._before.pop(key, None)
        if found is None:
            found = self._work_out(key)
            self.worked_out += 1
        if len(self) >= self._most:
            self.evicted += len(self._before)
            self._before = dict(self)
            self.clear()
        self[key] = found
        return found

    def forget(self) -> None:
        """Everything: what keys stand for has changed."""
        self.clear()
        self._before.clear()

    def numbers(self, keys: Array | list[Any]) -> Array:
        """Of all keys, i64. Keys of an array that follow their like are not looked up."""
        self.looked_up += len(keys)
        if isinstance(keys, list):
            return np.fromiter(map(self.__getitem__, keys), np.int64, len(keys))
        changes = np.flatnonzero(keys[1:] != keys[:-1]) + 1
        if 2 * len(changes) >= len(keys):
            return np.fromiter(map(self.__getitem__, keys.tolist()), np.int64, len(keys))
        heads = np.concatenate([[0], changes])
        known = np.fromiter(map(self.__getitem__, keys[heads].tolist()), np.int64, len(heads))
        return np.repeat(known, np.diff(heads, append=len(keys)))
