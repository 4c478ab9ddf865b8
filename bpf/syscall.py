"""bpf(2) for loading and attaching: maps, programs, tracepoints and kprobes.

Layouts are those of `union bpf_attr` in include/uapi/linux/bpf.h. Every call raises OSError if the kernel refuses.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

NUMBERS = {"x86_64": (321, 298), "aarch64": (280, 241)}
"""bpf and perf_event_open, by machine."""
MAP_CREATE, LOOKUP, UPDATE, DELETE, NEXT_KEY, PROG_LOAD = range(6)
PROG_TEST_RUN = 10
OBJ_INFO, RAW_TRACEPOINT_OPEN = 15, 17
KPROBE, TRACEPOINT, RAW_TRACEPOINT = 2, 5, 17
"""Program types."""
MAP = struct.Struct("<IIIIIII16s")
"""type, bytes of a key and of a value, entries, flags, inner map, NUMA node, name"""
ELEMENT = struct.Struct("<IIQQQ")
PROGRAM = struct.Struct("<IIQQIIQII16sIIIIQI")
"""type, instruction count, instructions, licence, log level, log size, log, kernel version, flags, name, network
device, attach type, BTF, then for the functions: bytes per record, address, count
"""
BTF_LOAD = 18
BTF = struct.Struct("<QQIII")
FUNCTION_BYTES = 8
INFO = struct.Struct("<IIQ")
MAP_INFO = struct.Struct("<IIIIII16s")
OPEN_RAW = struct.Struct("<QII")
PERF_ATTR_BYTES, PERF_ATTR_CONFIG1, PERF_TRACEPOINT, PERF_FD_CLOEXEC = 112, 56, 2, 8
KPROBES = Path("/sys/bus/event_source/devices/kprobe/type")
"""File with the perf event type of kprobes; missing if the kernel has no kprobes."""
PERF_IOC_ENABLE, PERF_IOC_SET_BPF = 0x2400, 0x40042408
INSTRUCTION = 8
NAME_BYTES = 15
LOG_BYTES = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def call(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """One bpf(2). Releases the GIL."""
    found = int(_libc.syscall(NUMBERS[os.uname().machine][0], command, attributes, len(attributes)))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


def _short(name: str) -> bytes:
    return name.encode()[:NAME_BYTES]


EXCHANGE = b"".join(
    struct.pack("<BBhi", *instruction)
    for instruction in ((0xB7, 1, 0, 0), (0x7B, 0x1A, -8, 0), (0xDB, 0x1A, -8, 0xE1), (0xB7, 0, 0, 0), (0x95, 0, 0, 0))
)
"""r1 = 0; *(u64 *)(r10 - 8) = r1; r1 = xchg(r10 - 8, r1); r0 = 0; exit."""
ANCESTOR = b"".join(
    struct.pack("<BBhi", *instruction)
    for instruction in ((0xB7, 1, 0, 0), (0x85, 0, 0, 123), (0xB7, 0, 0, 0), (0x95, 0, 0, 0))
)
"""r1 = 0; call bpf_get_current_ancestor_cgroup_id; r0 = 0; exit."""


class MapSpec(NamedTuple):
    """Parameters of a map. `name` has at most 15 bytes."""

    name: str
    type: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int

    @classmethod
    def of(cls, fd: int) -> MapSpec:
        """Parameters of an existing map."""
        info = ctypes.create_string_buffer(MAP_INFO.size)
        call(OBJ_INFO, INFO.pack(fd, len(info), ctypes.addressof(info)))
        kind, _, key, value, entries, flags, name = MAP_INFO.unpack(info.raw)
        return cls(name.rstrip(b"\0").decode(), kind, key, value, entries, flags)

    def create(self) -> Map:
        """Creates the map."""
        kind = (self.type, self.key_bytes, self.value_bytes, self.entries, self.flags)
        return Map(self, call(MAP_CREATE, MAP.pack(*kind, 0, 0, _short(self.name))))


class Map:
    """A map that this process has open. Keys are numbers; values are bytes or numbers."""

    def __init__(self, spec: MapSpec, fd: int) -> None:
        self.spec, self.fd = spec, fd

    def _element(self, command: int, key: bytes, value: int = 0) -> None:
        keys = ctypes.create_string_buffer(key, len(key))
        call(command, ELEMENT.pack(self.fd, 0, ctypes.addressof(keys), value, 0))

    def __setitem__(self, key: int, value: bytes | int) -> None:
        data = value.to_bytes(self.spec.value_bytes, "little") if isinstance(value, int) else value
        assert len(data) == self.spec.value_bytes
        values = ctypes.create_string_buffer(data, len(data))
        self._element(UPDATE, key.to_bytes(self.spec.key_bytes, "little"), ctypes.addressof(values))

    def __delitem__(self, key: int) -> None:
        """Raises KeyError if the key does not exist."""
        try:
            self._element(DELETE, key.to_bytes(self.spec.key_bytes, "little"))
        except FileNotFoundError:
            raise KeyError(key) from None

    def items(self) -> Iterator[tuple[int, bytes]]:
        """(key, value) pairs. Entries that change during iteration may be missed or returned twice."""
        key = ctypes.create_string_buffer(self.spec.key_bytes)
        value = ctypes.create_string_buffer(self.spec.value_bytes)
        before = 0
        while True:
            try:
                call(NEXT_KEY, ELEMENT.pack(self.fd, 0, before, ctypes.addressof(key), 0))
            except FileNotFoundError:
                return
            before = ctypes.addressof(key)
            try:
                self._element(LOOKUP, key.raw, ctypes.addressof(value))
            except FileNotFoundError:
                continue
            yield int.from_bytes(key.raw, "little"), value.raw

    def close(self) -> None:
        """Close the descriptor. Programs that use the map keep it alive."""
        os.close(self.fd)


def perf_event_open(attributes: bytes | ctypes.Array[ctypes.c_char], cpu: int) -> int:
    """Descriptor of a perf event on one CPU for all processes. `attributes`: a struct perf_event_attr."""
    fd = int(_libc.syscall(NUMBERS[os.uname().machine][1], attributes, -1, cpu, -1, PERF_FD_CLOEXEC))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"perf_event_open on CPU {cpu}: {os.strerror(number)}")
    return fd


def load_btf(data: bytes) -> int:
    """Descriptor of BTF for use by programs."""
    text = ctypes.create_string_buffer(data, len(data))
    return call(BTF_LOAD, BTF.pack(ctypes.addressof(text), 0, len(data), 0, 0))


def load_program(
    name: str, kind: int, code: bytes, functions: tuple[bytes, bytes] | None = None, log: bool = False
) -> int:
    """Descriptor of a program that passed the verifier. The OSError of a failure includes the last line of the
    verifier's log. `functions`: BTF and the beginnings of the functions, if the program has several
    (bpf/programs/link.py).
    """
    if functions is None:
        return _load_program(name, kind, code, (0, 0, 0, 0), log)
    btf = load_btf(functions[0])
    begins = ctypes.create_string_buffer(functions[1], len(functions[1]))
    try:
        where = btf, FUNCTION_BYTES, ctypes.addressof(begins), len(functions[1]) // FUNCTION_BYTES
        return _load_program(name, kind, code, where, log)
    finally:
        os.close(btf)


def _load_program(name: str, kind: int, code: bytes, functions: tuple[int, int, int, int], log: bool) -> int:
    buffer = ctypes.create_string_buffer(LOG_BYTES if log else 1)
    codes, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    shown = (1, len(buffer), ctypes.addressof(buffer)) if log else (0, 0, 0)
    what = (kind, len(code) // INSTRUCTION, ctypes.addressof(codes), ctypes.addressof(licence))
    try:
        return call(PROG_LOAD, PROGRAM.pack(*what, *shown, 0, 0, _short(name), 0, 0, *functions))
    except OSError as error:
        if not log:
            return _load_program(name, kind, code, functions, log=True)
        said = [line for line in buffer.value.decode(errors="replace").splitlines() if line]
        words = next((line for line in reversed(said) if not line.startswith("processed ")), "")
        raise OSError(error.errno, f"{error.strerror}: {words}" if words else error.strerror) from error


def takes(code: bytes) -> bool:
    """Whether the kernel accepts a raw tracepoint program: EXCHANGE uses an atomic operation that returns the previous
    value (since Linux 5.12), ANCESTOR reads the ancestors of a task's control group (at tracepoints since 5.15).
    """
    try:
        os.close(load_program("trial", RAW_TRACEPOINT, code))
    except OSError:
        return False
    return True


def attach_raw_tracepoint(name: str, program: int) -> int:
    """Descriptor that keeps a program attached to a raw tracepoint."""
    text = ctypes.create_string_buffer(name.encode())
    return call(RAW_TRACEPOINT_OPEN, OPEN_RAW.pack(ctypes.addressof(text), program, 0))


def attach_kprobe(function: str | int, program: int) -> int:
    """Descriptor that keeps a program attached to the beginning of a kernel function, given by name or address. Raises
    FileNotFoundError if the kernel has no kprobes.
    """
    kind = int(KPROBES.read_text())
    attr = ctypes.create_string_buffer(PERF_ATTR_BYTES)
    name = ctypes.create_string_buffer(function.encode()) if isinstance(function, str) else None
    # type, size, config, sample_period; config1 is the function's name, or 0 and config2 its address
    struct.pack_into("<IIQQ", attr, 0, kind, PERF_ATTR_BYTES, 0, 1)
    where = (ctypes.addressof(name), 0) if name else (0, function)
    struct.pack_into("<QQ", attr, PERF_ATTR_CONFIG1, *where)
    return _attach_perf_event(attr, program)


def attach_tracepoint(tracefs: Path, name: str, program: int) -> int:
    """Descriptor that keeps a program attached to a tracepoint `group/name`: a perf event that covers all CPUs."""
    number = int((tracefs / "events" / name / "id").read_text())
    attr = ctypes.create_string_buffer(PERF_ATTR_BYTES)
    # type, size, config, sample_period
    struct.pack_into("<IIQQ", attr, 0, PERF_TRACEPOINT, PERF_ATTR_BYTES, number, 1)
    return _attach_perf_event(attr, program)


def _attach_perf_event(attr: Any, program: int) -> int:
    fd = perf_event_open(attr, 0)
    try:
        fcntl.ioctl(fd, PERF_IOC_SET_BPF, program)
        fcntl.ioctl(fd, PERF_IOC_ENABLE, 0)
    except OSError:
        os.close(fd)
        raise
    return fd
