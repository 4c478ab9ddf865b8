"""What runtimes know of containers: a table in shared memory that workers look into, and their way to ask.

    worker --request--> pipe --> enricher --> table --> every worker        (pipeline/enricher.py)

A worker never waits: what is not in the table yet is `pending`, and asked for.

    head (128 bytes):   changes u64 | counters, see HEAD
    entry (2 KiB):      sequence u64 | key u8[32] | since_ns u64 | state u32 | bytes u32 | data u8[1992]

One writer, the enricher. `sequence` is odd while it writes an entry; who reads the same even number before and after
has a whole entry. `changes` moves after every change, so that a reader need not look again before. A key is a
container's id. The data is an encoded Info. When the enricher dies, the table stays as it is, and the next one goes on
with it; an entry that its death left half written stays odd until it is written again, and reads as if there was none.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from config.runtimes import FREE, STATES, Answer, Info
from pipeline.clock import boottime_ns
from pipeline.doorbell import InheritedFd, Questions
from pipeline.shm import Array, Segment

KEY_BYTES, DATA_BYTES = 32, 1992
COUNTERS = ("asked", "answered", "timeouts", "failures", "retries", "evicted", "oldest_pending_ns")
"""Questions to runtimes, what became of them, entries that had to make room; and since when the oldest of those that
are pending has been so (CLOCK_MONOTONIC), 0 if none is."""
HEAD = np.dtype([("changes", "<u8"), *((name, "<u8") for name in COUNTERS), ("pad", "<u8", 8)])
ENTRY = np.dtype(
    [
        ("sequence", "<u8"),
        ("key", "u1", KEY_BYTES),
        ("since_ns", "<u8"),
        ("state", "<u4"),
        ("bytes", "<u4"),
        ("data", "u1", DATA_BYTES),
    ]
)
ENTRIES, PROBES = 4096, 16
REQUEST_BYTES = KEY_BYTES + 1
"""The id, and the runtime's number as the kernel has it (bpf/layout.py, RUNTIMES)."""
ACCOUNTS = 255
"""In place of a runtime: the key is of a user or a group (pipeline/accounts.py)."""
ACCOUNT = struct.Struct("<4sI24s")
"""Its key: a word, USER or GROUP, and the number."""
USER, GROUP = b"user", b"grp\0"
MOST_ASKED = 1 << 16
TRIES = 100


NOTHING_YET = Answer()


class Table:
    """The table, in its segment."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment  # views do not keep it alive
        self.head: Array = segment.array(HEAD, 1)
        self.entries: Array = segment.array(ENTRY, ENTRIES, HEAD.itemsize)
        # of an entry, as words: a part that is read must be read at once
        self._sequences = self.entries["sequence"]

    @staticmethod
    def size() -> int:
        """Size of the segment."""
        return HEAD.itemsize + ENTRY.itemsize * ENTRIES

    @property
    def changes(self) -> int:
        """Moves with every change."""
        return int(self.head["changes"][0])

    def places(self, key: bytes) -> Iterator[int]:
        """Where a key may stand: the same in every process."""
        first = zlib.crc32(key)
        return ((first + i) % ENTRIES for i in range(PROBES))

    def get(self, key: bytes) -> Answer | None:
        """What is known of a container; None if it is not in the table."""
        for place in self.places(key):
            entry = self.entries[place]
            for _ in range(TRIES):
                sequence = int(self._sequences[place])
                if sequence % 2:
                    continue
                if int(entry["state"]) == FREE or entry["key"].tobytes() != key:
                    break
                state, since_ns = int(entry["state"]), int(entry["since_ns"])
                data = entry["data"][: int(entry["bytes"])].tobytes()
                if int(self._sequences[place]) == sequence:
                    return Answer(state, msgspec.msgpack.decode(data, type=Info), since_ns)
        return None

    def states(self) -> dict[str, int]:
        """How many containers are in which state."""
        words = np.ascontiguousarray(self.entries["key"][:, :4]).view("<u4")[:, 0]
        of_accounts = np.isin(words, np.frombuffer(USER + GROUP, "<u4"))
        counts = np.bincount(self.entries["state"][~of_accounts], minlength=len(STATES))[: len(STATES)]
        return {name: int(n) for name, n in zip(STATES[1:], counts[1:], strict=True)}

    def counters(self) -> dict[str, int]:
        """The counters of the head; the age of the oldest pending one in milliseconds."""
        found = {name: int(self.head[name][0]) for name in COUNTERS}
        since_ns = found.pop("oldest_pending_ns")
        found["oldest_pending_ms"] = (time.monotonic_ns() - since_ns) // 10**6 if since_ns else 0
        return found

    # -- the enricher alone

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.head[name] += np.uint64(by)

    def put(self, key: bytes, state: int, info: Info) -> None:
        """Enter or change a container; in a full neighbourhood the one that was written longest ago goes."""
        places = list(self.places(key))
        free = [p for p in places if self.entries[p]["state"] == FREE]
        place = self._place_of(key)
        if place is None and not free:
            self.count("evicted")
            free = [min(places, key=lambda p: int(self.entries[p]["since_ns"]))]
        self._write(free[0] if place is None else place, key, state, encoded(info))

    def remove(self, key: bytes) -> None:
        """Forget a container."""
        place = self._place_of(key)
        if place is not None:
            self._write(place, bytes(KEY_BYTES), FREE, b"")

    def _place_of(self, key: bytes) -> int | None:
        taken = (p for p in self.places(key) if self.entries[p]["state"] != FREE)
        return next((p for p in taken if self.entries[p]["key"].tobytes() == key), None)

    def _write(self, place: int, key: bytes, state: int, data: bytes) -> None:
        entry = self.entries[place]
        entry["sequence"] |= np.uint64(1)
        entry["key"] = np.frombuffer(key, "u1")
        entry["state"], entry["bytes"], entry["since_ns"] = state, len(data), boottime_ns()
        entry["data"][: len(data)] = np.frombuffer(data, "u1")
        entry["sequence"] += np.uint64(1)
        self.head["changes"] += np.uint64(1)


def encoded(info: Info) -> bytes:
    """At most DATA_BYTES: without labels, then without the ends of texts, if it has to be."""
    data = msgspec.msgpack.encode(info)
    if len(data) > DATA_BYTES:
        data = msgspec.msgpack.encode(msgspec.structs.replace(info, labels={}, cut=True))
    length = 1024
    while len(data) > DATA_BYTES:
        length //= 2
        texts = {name: getattr(info, name).encode()[:length].decode("utf-8", "ignore") for name in TEXTS}
        data = msgspec.msgpack.encode(Info(**texts, cut=True))
    return data


TEXTS = ("name", "image", "digest", "pod", "namespace", "pod_uid", "reason")


class Client:
    """A worker's view of the table, and its way to ask. What was found is remembered until the table changes."""

    def __init__(self, segment: str, requests: InheritedFd) -> None:
        self._table = Table(Segment(name=segment))
        self._questions = Questions(requests, MOST_ASKED)
        self._known: dict[bytes, Answer] = {}
        self._changes = 0

    def changed(self) -> bool:
        """Whether the table is another since this was last asked."""
        changes = self._table.changes
        if changes == self._changes:
            return False
        self._changes = changes
        self._known.clear()
        return True

    def of(self, context: Any) -> Answer:
        """What is known of the container of a context (a CONTEXT scalar, bpf/layout.py)."""
        return self.look(context["container"].tobytes(), int(context["runtime"]))

    def user(self, number: int) -> str:
        """A user's name; "" if there is none, or none is known yet."""
        return self._account(USER, number)

    def group(self, number: int) -> str:
        """The same of a group."""
        return self._account(GROUP, number)

    def _account(self, word: bytes, number: int) -> str:
        known = self.look(ACCOUNT.pack(word, number, b""), ACCOUNTS).known
        return known.name if known else ""

    def look(self, key: bytes, runtime: int) -> Answer:
        """What is known of a container. Asks for it if that is nothing. Never waits."""
        found = self._known.get(key)
        if found is None:
            found = self._table.get(key)
            if found is None:
                self._questions.ask(key, key + bytes([runtime]))
                return NOTHING_YET
            self._known[key] = found
        return found


def client(segment: str, requests: InheritedFd | None) -> Client | None:
    """A worker's, if runtimes are asked in this run."""
    return Client(segment, requests) if requests else None


def requests(fd: int) -> Iterator[tuple[bytes, int]]:
    """(id, runtime) of each request that stands in the pipe now."""
    while True:
        try:
            data = os.read(fd, REQUEST_BYTES)
        except BlockingIOError:
            return
        if len(data) < REQUEST_BYTES:
            return
        yield data[:KEY_BYTES], data[KEY_BYTES]
