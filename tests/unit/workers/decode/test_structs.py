"""Structs behind pointers, laid out by ctypes as the kernel's headers have them."""

from __future__ import annotations

import ctypes
import signal
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.decode.structs import STRUCTS

U64 = ctypes.c_uint64


class Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class CloneArgs(ctypes.Structure):
    # linux/sched.h, CLONE_ARGS_SIZE_VER2
    _fields_ = tuple(
        (name, U64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


class OpenHow(ctypes.Structure):
    # linux/openat2.h
    _fields_ = (("flags", U64), ("mode", U64), ("resolve", U64))


def decode(kind: str, data: bytes) -> object:
    return STRUCTS[kind][0](data)


@pytest.mark.parametrize("kind", ["const struct timespec*", "struct timespec*"])
@pytest.mark.parametrize("value", [(0, 1000), (-1, 999_999_999), (2**62, -5)])
def test_timespec(kind: str, value: tuple[int, int]) -> None:
    assert decode(kind, bytes(Timespec(*value))) == {"tv_sec": value[0], "tv_nsec": value[1]}
    assert STRUCTS[kind][1] == ctypes.sizeof(Timespec)


def test_a_pair_of_descriptors() -> None:
    assert decode("int[2]", struct.pack("=ii", 3, -1)) == [3, -1]


def test_clone_args_of_every_version() -> None:
    whole = bytes(CloneArgs(0x100, 1, 2, 3, signal.SIGCHLD, 4, 5, 6, 7, 8, 9))
    expected = {
        "flags": "CLONE_VM",
        "pidfd": 1,
        "child_tid": 2,
        "parent_tid": 3,
        "exit_signal": "SIGCHLD",
        "stack": 4,
        "stack_size": 5,
        "tls": 6,
        "set_tid": 7,
        "set_tid_size": 8,
        "cgroup": 9,
    }
    # CLONE_ARGS_SIZE_VER0, 1 and 2
    for size, fields in ((64, 8), (80, 10), (88, 11)):
        assert decode("struct clone_args*", whole[:size]) == dict(list(expected.items())[:fields])


def test_clone_args_without_an_exit_signal_keep_its_zero() -> None:
    found = decode("struct clone_args*", bytes(CloneArgs()))
    assert isinstance(found, dict)
    assert (found["exit_signal"], found["flags"]) == (0, "0")


def test_open_how() -> None:
    import os

    data = bytes(OpenHow(os.O_RDWR | os.O_CREAT, 0o640, 0x08 | 0x04 | 1 << 40))
    assert decode("struct open_how*", data) == {
        "flags": "O_RDWR|O_CREAT",
        "mode": "S_IRUSR|S_IWUSR|S_IRGRP",
        "resolve": "RESOLVE_NO_SYMLINKS|RESOLVE_BENEATH|0x10000000000",
    }
    assert decode("struct open_how*", bytes(OpenHow())) == {"flags": "O_RDONLY", "mode": "0", "resolve": "0"}


def test_open_hows_bits_beyond_32_are_shown() -> None:
    # openat2 refuses them, and a probe for future flags sets them
    found = decode("struct open_how*", bytes(OpenHow(1 << 33)))
    assert isinstance(found, dict)
    assert "0x200000000" in str(found["flags"])


@given(st.sampled_from(sorted(STRUCTS)), st.binary(max_size=200))
def test_any_bytes_that_are_long_enough_decode(kind: str, data: bytes) -> None:
    decoder, least = STRUCTS[kind]
    if len(data) >= least:
        assert decoder(data) is not None
