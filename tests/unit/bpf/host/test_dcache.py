"""The kernel's table of names is found by what names point to."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import pytest

from headrace.bpf.host.dcache import NameCache, name_hash, table_of
from headrace.bpf.layout import NAME_SAMPLE

FOLDER, TABLE, SHIFT = 0xFFFF888100431180, 0xFFFF888625C00000, 10
RANDOM = random.Random(1)


def sample(name: bytes, bucket: int, value: int | None = None) -> bytes:
    row = np.zeros(1, NAME_SAMPLE)
    row["bucket"], row["folder"] = bucket, FOLDER
    row["hash"] = name_hash(FOLDER, name) if value is None else value
    row["length"] = len(name)
    row["name"][0, : len(name)] = np.frombuffer(name, np.uint8)
    return row.tobytes()


def first(name: bytes, table: int = TABLE, shift: int = SHIFT) -> bytes:
    return sample(name, table + 8 * (name_hash(FOLDER, name) >> shift))


def later(names: Iterable[bytes]) -> list[bytes]:
    """Names that others point to, which may stand anywhere."""
    return [sample(name, 0xFFFF888000000000 + 8 * RANDOM.randrange(1 << 32)) for name in names]


def named(count: int, prefix: bytes = b"name") -> list[bytes]:
    return [prefix + str(number).encode() for number in range(count)]


@pytest.mark.parametrize(
    ("name", "value"),
    # as this kernel had them
    [
        (b"h", 0x50412F59),
        (b"nowhere.so", 0x6968431C),
        (b"workers", 0x80D9B0B4),
        (b"libgcc_s.so.1", 0x46E709C7),
        (b"<frozen importlib._bootstrap>", 0x678AD2A4),
    ],
)
def test_a_name_has_the_kernels_hash(name: bytes, value: int) -> None:
    assert name_hash(FOLDER, name) == value


@pytest.mark.parametrize("shift", [1, 10, 20])
def test_names_that_are_the_first_agree(shift: int) -> None:
    samples = [*(first(name, shift=shift) for name in named(8)), *later(named(50, b"later"))]
    assert table_of(samples) == NameCache(TABLE, shift)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [bytes(NAME_SAMPLE.itemsize)] * 64,
        later(named(64)),
        [first(name) for name in named(2)],
        # one name again and again is one
        [first(b"name")] * 64,
        [first(b"")] * 64,
    ],
)
def test_too_few_that_agree_are_no_table(samples: list[bytes]) -> None:
    assert table_of(samples) is None


def test_a_kernel_with_another_hash_has_no_table_that_is_known() -> None:
    samples = [sample(name, TABLE + 8 * (number >> SHIFT), number) for number, name in enumerate(named(64))]
    assert table_of(samples) is None


def test_two_tables_that_as_many_agree_on_are_none() -> None:
    names = named(8)
    samples = [first(name) for name in names[:4]] + [first(name, table=TABLE + 8) for name in names[4:]]
    assert table_of(samples) is None
