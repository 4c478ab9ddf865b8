"""Registers as C types, and strings gathered out of one array."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.widths import number, shown_width, width_of
from headrace.workers.decode.values import decimals, is_pointer
from headrace.workers.records.blocks import byte_strings

RAW = st.integers(0, 2**64 - 1)


@given(RAW)
def test_numbers_are_what_c_makes_of_a_register(raw: int) -> None:
    for kind, c_type in (
        ("int", ctypes.c_int32),
        ("pid_t", ctypes.c_int32),
        ("unsigned int", ctypes.c_uint32),
        ("u32", ctypes.c_uint32),
        ("uid_t", ctypes.c_uint32),
        ("mode_t", ctypes.c_uint16),
        ("long", ctypes.c_int64),
        ("off_t", ctypes.c_int64),
        ("unsigned long", ctypes.c_uint64),
        ("size_t", ctypes.c_uint64),
        ("u64", ctypes.c_uint64),
        ("void*", ctypes.c_uint64),
    ):
        assert number(raw, width_of(kind)) == c_type(raw).value, kind


def test_a_descriptor_that_the_kernel_takes_as_unsigned_is_shown_as_the_int_that_it_is() -> None:
    for name, kind, width in (("newdfd", "int", "u32"), ("fd", "unsigned int", "u32"), ("fd", "unsigned long", "u64")):
        assert number(0xFFFFFFFF, shown_width(name, kind, width)) == -1
    assert number(0xFFFFFFFF, shown_width("flags", "unsigned int", "u32")) == 0xFFFFFFFF


@pytest.mark.parametrize("kind", ["const char*", "struct stat*", "unsigned long[]", "void*"])
def test_addresses_are_known_by_their_type(kind: str) -> None:
    assert is_pointer(kind)


@pytest.mark.parametrize("kind", ["int", "size_t", "off_t", "unsigned long"])
def test_numbers_are_no_addresses(kind: str) -> None:
    assert not is_pointer(kind)


def naive(data: bytes, starts: list[int], sizes: list[int]) -> list[bytes]:
    return [data[s : s + n].rstrip(b"\0") for s, n in zip(starts, sizes, strict=True)]


@given(st.lists(st.binary(max_size=90) | st.binary(min_size=500, max_size=600), max_size=12))
def test_strings_are_the_slices_without_trailing_nuls(strings: list[bytes]) -> None:
    data, starts, sizes = b"", [], []
    for string in strings:
        starts.append(len(data))
        sizes.append(len(string))
        data += string + bytes(-len(string) % 8)
    data += bytes(32 - len(data) % 32)
    found = byte_strings(np.frombuffer(data, "u1"), np.array(starts, np.int64), np.array(sizes, np.int64))
    assert found == naive(data, starts, sizes)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63, 64, 65, 511, 512, 513, 4096])
def test_strings_at_the_edges_of_the_gathered_widths(size: int) -> None:
    data = bytes(1 + i % 250 for i in range(8192))
    found = byte_strings(np.frombuffer(data, "u1"), np.array([0, 4096]), np.array([size, size]))
    assert found == naive(data, [0, 4096], [size, size])


def test_a_string_at_the_very_end_is_whole() -> None:
    data = bytes(24) + b"the end!"
    assert byte_strings(np.frombuffer(data, "u1"), np.array([24, 24]), np.array([8, 3])) == [b"the end!", b"the"]


def test_a_nul_inside_stays() -> None:
    data = b"a\0b\0\0\0\0\0"
    assert byte_strings(np.frombuffer(data, "u1"), np.array([0]), np.array([5])) == [b"a\0b"]


def test_no_strings_are_none() -> None:
    none = np.zeros(0, np.int64)
    assert byte_strings(np.zeros(32, "u1"), none, none) == []


@pytest.mark.parametrize("lead", [b"", b"t", b"{12", b'{"timestamp":'])
def test_decimals_of_nineteen_digits(lead: bytes) -> None:
    numbers = [10**18, 1_790_000_000_000_000_001, 1_234_567_890_123_456_789, 10**19 - 1]
    assert decimals(lead, np.array(numbers, np.uint64)).tolist() == [b"%s%d" % (lead, n) for n in numbers]


@pytest.mark.parametrize("numbers", [[], [0], [10**18 - 1, 10**18], [10**19, 2**64 - 1]])
def test_decimals_of_other_lengths(numbers: list[int]) -> None:
    assert decimals(b"n=", np.array(numbers, np.uint64)).tolist() == [b"n=%d" % n for n in numbers]
