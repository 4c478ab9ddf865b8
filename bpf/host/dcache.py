"""Locates the kernel's dentry hash table (fs/dcache.c) without its symbol, which needs CONFIG_KALLSYMS_ALL.

The table points to each dentry that is first in its bucket: `bucket = table + 8 * (hash >> shift)`. Most of the
samples that a program takes are first and therefore agree on a table; the others point anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from headrace.bpf.layout import NAME_SAMPLE

GOLDEN_RATIO = 0x61C8864680B583EB
ALL = (1 << 64) - 1
LEAST_SHIFT, MAX_SHIFT = 1, 20
"""Bits by which the 32-bit hash is shifted: from two billion buckets down to 4,096, as on a kernel with 32 MB."""
AGREE = 3
"""Minimum number of names, in different buckets, that must agree."""


class NameCache(NamedTuple):
    """Address of the first bucket, and the shift that converts a hash to a bucket number."""

    address: int
    shift: int


def _turned(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & ALL


def name_hash(folder: int, name: bytes) -> int:
    """full_name_hash() of fs/namei.c, for 64-bit machines that read whole words (CONFIG_DCACHE_WORD_ACCESS)."""
    x, y = 0, folder
    whole = len(name) // 8 * 8
    for at in range(0, whole, 8):
        x ^= int.from_bytes(name[at : at + 8], "little")
        y ^= x
        x = (_turned(x, 12) + y) & ALL
        y = _turned(y, 45) * 9 & ALL
    x ^= int.from_bytes(name[whole:], "little")
    return ((y ^ x * GOLDEN_RATIO & ALL) * GOLDEN_RATIO & ALL) >> 32


def table_of(samples: Iterable[bytes]) -> NameCache | None:
    """The table on which most of the samples (NAME_SAMPLE[1] each) agree; None if too few agree or the kernel uses
    another hash.
    """
    found: Counter[NameCache] = Counter()
    for sample in {bytes(s) for s in samples}:
        row = np.frombuffer(sample, NAME_SAMPLE)[0]
        if not row["bucket"] or name_hash(int(row["folder"]), row["name"].tobytes()[: row["length"]]) != row["hash"]:
            continue
        for shift in range(LEAST_SHIFT, MAX_SHIFT + 1):
            found[NameCache(int(row["bucket"]) - 8 * (int(row["hash"]) >> shift), shift)] += 1
    ranked = found.most_common(2)
    if not ranked or ranked[0][1] < AGREE or (len(ranked) > 1 and ranked[1][1] == ranked[0][1]):
        return None
    return ranked[0][0]
