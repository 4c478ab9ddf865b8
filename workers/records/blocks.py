"""Many texts in one byte array, with operations on all of them at once. No text becomes a Python object.

    data   00 | t0 ... 00 | t1 ... 00 | ...     every text has a NUL before it and at least one after it
    begin       ^           ^                    start of each text, i64
    size        bytes without the last NUL       i64

A text that contains NULs has several parts: the elements of a vector, or the components of a walked path
(bpf/c/path.h), stored from the last to the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
WORD = 8
NUL, SPACE, DOT, SLASH = b"\0 ./"
_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(WORD)], np.uint64)


@dataclass(frozen=True)
class Block:
    """`data`: u8[bytes]; `begin`, `size`: i64[texts]."""

    data: Array
    begin: Array
    size: Array

    def __len__(self) -> int:
        return len(self.begin)

    def texts(self) -> list[bytes]:
        """All texts as bytes objects."""
        data = self.data.tobytes()
        return [data[b:e] for b, e in zip(self.begin.tolist(), (self.begin + self.size).tolist(), strict=True)]

    def rows(self, positions: Array) -> Array:
        """Index of the text that each byte position belongs to. The last NUL of a text belongs to it."""
        return np.searchsorted(self.begin, positions, "right") - 1

    def is_ascii(self) -> Array:
        """Mask of the texts that are ASCII."""
        found = np.ones(len(self), bool)
        beyond = np.flatnonzero(self.data > 0x7F)
        if len(beyond):
            found[self.rows(beyond)] = False
        return found

    @cached_property
    def nuls(self) -> tuple[Array, Array, Array]:
        """Positions of the NULs that are inside a text or end one; for each text, how many of these NULs come before
        it and how many are its own.
        """
        nuls = np.flatnonzero(self.data == NUL)
        first = np.searchsorted(nuls, self.begin)
        counts = np.searchsorted(nuls, self.begin + self.size, "right") - first
        before = np.cumsum(counts) - counts
        if len(nuls) != counts.sum() or (first != before).any():
            nuls = nuls[_ranges(first, counts)]
        return nuls, before, counts

    @cached_property
    def ended(self) -> Block:
        """The same texts, each without one trailing NUL if it has any."""
        has = (self.size > 0) & (self.data[self.begin + self.size - 1] == NUL)
        return Block(self.data, self.begin, self.size - has)

    @cached_property
    def stripped(self) -> Block:
        """The same texts without trailing NULs."""
        size = self.size
        while True:
            ends = (size > 0) & (self.data[self.begin + size - 1] == NUL)
            if not ends.any():
                return Block(self.data, self.begin, size)
            size = size - ends


def _ranges(start: Array, length: Array) -> Array:
    """Concatenation of the ranges that begin at `start[i]` and have `length[i]` numbers."""
    ends = np.cumsum(length)
    return np.repeat(start - ends + length, length) + np.arange(int(ends[-1]) if len(ends) else 0)


def gather(data: Array, start: Array, size: Array) -> Block:
    """The texts `data[start:start + size]`. Each `start` must be a multiple of 8, as the starts of blobs are."""
    words = data[: len(data) // WORD * WORD].view(np.uint64)
    each = size // WORD + 1
    ends = np.cumsum(each)
    total = int(ends[-1]) if len(ends) else 0
    block = np.zeros(total + 1, np.uint64)
    if total:
        source = np.repeat(start // WORD - ends + each, each) + np.arange(total)
        words.take(source, mode="clip", out=block[1:])
        block[ends] &= _MASKS[size % WORD]
    return Block(block.view(np.uint8), (ends - each + 1) * WORD, size)


def byte_strings(data: Array, start: Array, size: Array) -> list[bytes]:
    """The texts `data[start:start + size]` as bytes objects, without trailing NULs. `start` as for gather()."""
    return gather(data, start, size).stripped.texts()


def joined(block: Block, start: Array, length: Array, pieces: Array) -> Block:
    """Texts concatenated from pieces of `block`: text i consists of the next `pieces[i]` pieces. The last piece of
    each text includes the NUL after it.
    """
    data = np.empty(int(length.sum()) + 1, np.uint8)
    data[0] = NUL
    np.take(block.data, _ranges(start, length), out=data[1:], mode="clip")
    ends = np.concatenate([[0], np.cumsum(length)])[np.concatenate([[0], np.cumsum(pieces)])]
    return Block(data, ends[:-1] + 1, np.diff(ends) - 1)


def walked(block: Block, rooted: Array | None = None) -> Block:
    """Walked paths (components from the last to the first) as path strings, like paths.walked(). The texts in the mask
    `rooted` have no root component: `leaf, folder` becomes `/folder/leaf`, and an empty text becomes `/`.
    """
    block = block.stripped
    nuls, first, count = block.nuls
    start = np.empty(len(nuls), np.int64)
    start[1:] = nuls[:-1] + 1
    start[first] = block.begin
    # include the preceding NUL, which becomes the slash
    start -= 1
    length = nuls - start
    last = first + count - 1
    is_root = (length[last] == 2) & (block.data[nuls[last] - 1] == SLASH) & (count > 1)
    if rooted is not None:
        is_root &= ~rooted
    bare = ~is_root if rooted is None else ~(is_root | rooted)
    start[last] += bare
    length[last] -= bare
    length[first] += 1
    # pieces of each text from the last to the first, without the root
    order = np.repeat(2 * first + count - 1, count) - np.arange(len(nuls))
    slashes = np.ones(len(nuls), bool)
    slashes[last[bare]] = False
    if is_root.any():
        keep = np.ones(len(nuls), bool)
        keep[last[is_root]] = False
        order = order[keep[order]]
        count = count - is_root
    found = joined(block, start[order], length[order], count)
    at = np.cumsum(length[order]) - length[order] + 1
    found.data[at[slashes[order]]] = SLASH
    return found


def spaced(block: Block) -> Block:
    """Vectors as lines: inner NULs become spaces, one trailing NUL is removed."""
    block = block.ended
    nuls, first, _ = block.nuls
    inner = np.ones(len(nuls), bool)
    inner[first[1:] - 1] = False
    inner[-1:] = False
    data = block.data.copy()
    data[nuls[inner]] = SPACE
    return Block(data, block.begin, block.size)


def element(block: Block, number: int) -> tuple[Block, Array]:
    """Element `number` of each vector, and the mask of vectors that have it. The other texts are empty."""
    full = block.size > 0
    block = block.ended
    nuls, first, count = block.nuls
    has = full & (count > number)
    at = np.where(has, first + number, 0)
    start = np.where(has, nuls[at - 1] + 1, 0) if number else block.begin
    # a vector without the element gets the NUL at position 0
    start = np.where(has, start, 0)
    length = np.where(has, nuls[at] - start + 1, 1)
    return joined(block, start, length, np.ones(len(block), np.int64)), has
