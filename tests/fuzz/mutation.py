"""Mutation without libFuzzer: the same inputs every time, on every machine.

`mutated` is what the smoke in `make test` is made of, where atheris need not be there; `children` are the rows that
targets with EACH > 1 decode at once.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

Array = np.ndarray[Any, Any]
NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
"""What lies at the edges of the types that there are."""
FORMS = ((1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q"))
MAX_CHANGES = 8
LONGEST = 1 << 16


def _number(data: bytearray, at: int, chance: random.Random) -> None:
    size, form = chance.choice(FORMS)
    if at + size <= len(data):
        struct.pack_into(form, data, at, chance.choice(NUMBERS) & (1 << 8 * size) - 1)


def _changed(data: bytearray, chance: random.Random, others: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    """One change."""
    at, what = chance.randrange(len(data) + 1), chance.randrange(10)
    if what == 0 and data:
        data[min(at, len(data) - 1)] = chance.randrange(256)
    elif what == 1 and data:
        data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
    elif what == 2:
        _number(data, at, chance)
    elif what == 3:
        del data[at : at + chance.randint(1, 16)]
    elif what == 4:
        data[at:at] = data[at : at + chance.randint(1, 64)]
    elif what == 5:
        other = chance.choice(others)
        begin = chance.randrange(len(other) + 1)
        data[at : at + chance.choice((0, 16, 64))] = other[begin : begin + chance.randint(1, 64)]
    elif what == 6:
        data[at:at] = chance.randbytes(chance.randint(1, 4))
    elif tokens:
        token = chance.choice(tokens)
        data[at : at + chance.choice((0, len(token)))] = token


def mutated(
    data: bytes, chance: random.Random, others: Sequence[bytes] = (b"",), tokens: Sequence[bytes] = ()
) -> bytes:
    """`data` with a few changes; some of its bytes may come from `others` and `tokens`."""
    found = bytearray(data)
    for _ in range(chance.randint(1, MAX_CHANGES)):
        _changed(found, chance, others, tokens)
    return bytes(found[:LONGEST])


def siblings(data: bytes, count: int, tokens: Sequence[bytes] = ()) -> list[bytes]:
    """`data` and texts that are much like it; the same ones for the same `data`."""
    chance = random.Random(crc32(data))
    return [data, *(mutated(data, chance, (data,), tokens) for _ in range(count - 1))]


def children(data: bytes, count: int) -> Array:
    """u8[count, len(data)]: first `data` itself, then rows with some bytes or numbers changed."""
    rows = np.tile(np.frombuffer(data, np.uint8), (count, 1))
    if not len(data) or count < 2:
        return rows
    chance = np.random.default_rng(crc32(data))
    shape = MAX_CHANGES, count - 1
    at = chance.integers(0, len(data), shape)
    size = np.array([1, 1, 2, 4, 8])[chance.integers(0, 5, shape)]
    # numbers stand at multiples of their size, mostly
    at -= np.where(chance.random(shape) < 0.9, at % size, 0)
    known = np.array(NUMBERS, "<u8")[chance.integers(0, len(NUMBERS), shape)]
    values = np.where(chance.random(shape) < 0.5, known, chance.integers(0, 2**64, shape, np.uint64))
    pieces = values.astype("<u8").view(np.uint8).reshape(*shape, 8)
    made = chance.integers(1, MAX_CHANGES + 1, count - 1)
    byte = np.arange(8)
    kept = (byte < size[..., None]) & (np.arange(MAX_CHANGES)[:, None, None] < made[:, None])
    kept &= at[..., None] + byte < len(data)
    _, row, _ = found = np.nonzero(kept)
    rows[row + 1, (at[..., None] + byte)[found]] = pieces[found]
    return rows
