"""Reads what the collector keeps: files, descriptors and memory of processes, BPF programs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Callable, Iterator
from itertools import islice

from headrace.bpf import syscall
from headrace.pipeline.transport.shm import stat_fields

PIDFD_GETFD = 438
"""The same number on all architectures."""
START_FIELD = 19
"""Index of the start time among the fields of /proc/PID/stat that stat_fields() returns."""
MAX_DESCRIPTORS = 1024
MAX_REGION_BYTES = 64 << 20
MAX_PROGRAM_BYTES = 16 << 20
PROGRAM_LINK = "anon_inode:bpf-prog"
_libc = ctypes.CDLL(None, use_errno=True)


class ProgramInfo(ctypes.Structure):
    """The beginning of struct bpf_prog_info (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_ubyte * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
    )


def check_process(pid: int, start_ns: int) -> None:
    """Raises ProcessLookupError if the process with this number is not the one that began at `start_ns`."""
    fields = stat_fields(pid)
    ticks = os.sysconf("SC_CLK_TCK")
    if len(fields) <= START_FIELD or abs(int(fields[START_FIELD]) - start_ns * ticks // 10**9) > 1:
        raise ProcessLookupError


def is_inode(fd: int, inode: int) -> bool:
    """Whether an open file is a regular file with this inode."""
    found = os.fstat(fd)
    return stat.S_ISREG(found.st_mode) and found.st_ino == inode


def reopened(fd: int) -> int:
    """The same file, opened for reading."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def with_descriptors(ways: Iterator[int], pid: int) -> Iterator[int]:
    """The candidates, then every file that the process has open: it may have deleted the one that is looked for."""
    yield from ways
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in islice(entries, MAX_DESCRIPTORS):
            with contextlib.suppress(OSError):
                yield os.open(entry.path, os.O_PATH | os.O_CLOEXEC)


def contents(fd: int, most: int) -> Callable[[int], bytes]:
    """Reads a file from its beginning, up to `most` bytes."""
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        data = os.pread(fd, min(size, most - at), at)
        at += len(data)
        return data

    return read


def pieces(data: bytes) -> Callable[[int], bytes]:
    """Returns data piece by piece."""
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        piece = data[at : at + size]
        at += len(piece)
        return piece

    return read


def memory(pid: int, start_ns: int, address: int, size: int) -> Callable[[int], bytes]:
    """Reads a region of a process, up to MAX_REGION_BYTES. Raises OSError, ProcessLookupError."""
    check_process(pid, start_ns)
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        left, at, found = min(size, MAX_REGION_BYTES), address, bytearray()
        while left > 0:
            data = os.pread(fd, min(left, 1 << 20), at)
            if not data:
                break
            found += data
            at, left = at + len(data), left - len(data)
    except OSError:
        if not found:
            raise
    finally:
        os.close(fd)
    if not found:
        raise ProcessLookupError
    return pieces(bytes(found))


def descriptor(pid: int, start_ns: int, number: int) -> int:
    """A file that a process has open, with O_PATH. Raises OSError, ProcessLookupError."""
    fd = os.open(f"/proc/{pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
    try:
        check_process(pid, start_ns)
    except ProcessLookupError:
        os.close(fd)
        raise
    return fd


def bpf_program(pid: int, start_ns: int, number: int) -> tuple[bytes, dict[str, object]]:
    """(instructions as the kernel runs them, type, name and so on) of a BPF program, by its descriptor in a process.

    Raises OSError, ProcessLookupError.
    """
    process = os.pidfd_open(pid)
    try:
        check_process(pid, start_ns)
        fd = int(_libc.syscall(PIDFD_GETFD, process, number, 0))
    finally:
        os.close(process)
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    try:
        if os.readlink(f"/proc/self/fd/{fd}") != PROGRAM_LINK:
            raise FileNotFoundError
        size = _info(fd, ProgramInfo()).xlated_prog_len
        code = ctypes.create_string_buffer(min(size, MAX_PROGRAM_BYTES))
        found = _info(fd, ProgramInfo(xlated_prog_len=len(code), xlated_prog_insns=ctypes.addressof(code)))
    finally:
        os.close(fd)
    about: dict[str, object] = {
        "id": found.id,
        "type": found.type,
        "name": found.name.decode("utf-8", "replace"),
        "tag": bytes(found.tag).hex(),
        "uid": found.created_by_uid,
    }
    return code.raw, about


def _info(fd: int, info: ProgramInfo) -> ProgramInfo:
    syscall.call(syscall.OBJ_INFO, syscall.INFO.pack(fd, ctypes.sizeof(info), ctypes.addressof(info)))
    return info
