"""C heap settings for a process that allocates and frees large arrays in every turn."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
MAX_FROM_HEAP = 32 << 20
"""The maximum that glibc allows (HEAP_MAX_SIZE / 2)."""
KEPT_FREE = 64 << 20


def keep() -> None:
    """Keep up to KEPT_FREE freed bytes instead of returning them to the kernel.

    By default glibc maps and unmaps large blocks: each array of a turn costs a page fault per 4 KiB, nearly half of a
    worker's time under high load (decisions/0010). Does nothing with C libraries that have no mallopt.
    """
    _set(M_MMAP_THRESHOLD, MAX_FROM_HEAP)
    _set(M_TRIM_THRESHOLD, KEPT_FREE)


def share() -> None:
    """Let all threads use one heap. Otherwise each thread reserves 64 MiB of address space."""
    _set(M_ARENA_MAX, 1)


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
