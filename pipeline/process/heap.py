"""The C heap of a process whose arrays come and go with every turn."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_FROM_HEAP = 32 << 20
"""The most that glibc allows (HEAP_MAX_SIZE / 2)."""
KEPT_FREE = 64 << 20


def keep() -> None:
    """Keep what is freed, up to KEPT_FREE bytes, instead of giving it back to the kernel.

    glibc maps and unmaps large blocks, so that each array of a turn costs a page fault for every 4 KiB: nearly
    half of a worker's time in a flood (decisions/0010). Other C libraries have no mallopt and are left alone.
    """
    _set(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)
    _set(M_TRIM_THRESHOLD, KEPT_FREE)


def share() -> None:
    """Let all threads use one heap: otherwise each reserves 64 MiB of address space of its own."""
    _set(M_ARENA_MAX, 1)


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
