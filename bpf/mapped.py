"""Array maps (BPF_F_MMAPABLE) as numpy arrays: read without a system call."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np


class MappedArray:
    """One array map. As long as there are views of `array`, close() leaves it mapped."""

    def __init__(self, fd: int, dtype: np.dtype[Any], count: int, writable: bool = False) -> None:
        size = (dtype.itemsize * count + mmap.PAGESIZE - 1) & ~(mmap.PAGESIZE - 1)
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, protection)
        self.array = np.frombuffer(self._map, dtype, count)

    def close(self) -> None:
        """Unmap."""
        del self.array
        with contextlib.suppress(BufferError):  # after an error, its traceback has views
            self._map.close()
