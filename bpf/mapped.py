"""Array maps (BPF_F_MMAPABLE) as numpy arrays, which are read without a system call."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np


class MappedArray:
    """One array map. It stays mapped after close() while views of `array` exist."""

    def __init__(self, fd: int, dtype: np.dtype[Any], count: int, writable: bool = False) -> None:
        size = (dtype.itemsize * count + mmap.PAGESIZE - 1) & ~(mmap.PAGESIZE - 1)
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, protection)
        self.array = np.frombuffer(self._map, dtype, count)

    def close(self) -> None:
        """Unmap."""
        del self.array
        with contextlib.suppress(BufferError):  # a traceback may hold views
            self._map.close()
